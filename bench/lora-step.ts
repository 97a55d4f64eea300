import { encodeSafetensors } from "#src/model/checkpoint/safetensors/safetensors-writer";
import type { PatchableModel } from "#src/patching/model";
import { Lora } from "#src/training/lora";
import { Trainer } from "#src/training/trainer";
import { bestAndMedian, rounded } from "./harness.ts";
import type { JobResult } from "./jobs.ts";
import { PythonPeer } from "./python-peer.ts";

const PROMPTS = 8;
const TOKENS = 64;
const LEARNING_RATE = 1e-3;
const WEIGHT_DECAY = 0.01;

interface Step {
  readonly loss: number;
  readonly ms: number;
}

/**
 * Steps of a LoRA on the projections of queries and values, 8 prompts of 64 tokens, beside the same steps in PyTorch (peft) where
 * `PYTHON` (default python3) has it: in turn, from the same start, with the losses of both.
 */
export async function loraStep(model: PatchableModel, rounds: number): Promise<JobResult> {
  const steps = Math.max(3, Math.ceil(rounds / 2));
  const ids = Array.from({ length: PROMPTS }, (_, p) =>
    Array.from({ length: TOKENS }, (_, i) => 100 + ((i * 37 + p * 101) % 1000)),
  );
  using lora = new Lora(model, { rank: 8, modules: ["q_proj", "v_proj"] });
  const torch = await openTorch(model, lora, ids);
  try {
    using trainer = new Trainer(model, {
      parameters: lora.parameters,
      learningRate: LEARNING_RATE,
      weightDecay: WEIGHT_DECAY,
    });
    const prompts = ids.map((own) => model.promptFromIds(own));
    const own = async (): Promise<Step> => {
      const began = performance.now();
      const { loss, gradNorm } = trainer.step(prompts);
      const value = await loss.item();
      const ms = performance.now() - began;
      loss.dispose();
      gradNorm.dispose();
      return { loss: value, ms };
    };
    const ours: Step[] = [];
    const theirs: Step[] = [];
    for (let step = 0; step < steps; step++) {
      ours.push(await own());
      if (torch.missing === undefined) theirs.push(await torch.ask<Step>("step"));
    }
    // The first compiles kernels.
    const time = (all: readonly Step[]) => bestAndMedian(all.slice(1).map(({ ms }) => ms));
    const xpatch = time(ours);
    return {
      name: "lora-step",
      prompts: PROMPTS,
      tokens: TOKENS,
      steps,
      bestMs: rounded(xpatch.bestMs),
      medianMs: rounded(xpatch.medianMs),
      ...(theirs.length === 0
        ? { torch: torch.missing }
        : {
            torch: torch.version,
            torchBestMs: rounded(time(theirs).bestMs),
            torchMedianMs: rounded(time(theirs).medianMs),
            ofTorchMedian: rounded(xpatch.medianMs / time(theirs).medianMs),
            largestLossDifference: Math.max(
              ...ours.map(({ loss }, i) => Math.abs(loss - theirs[i]!.loss) / theirs[i]!.loss),
            ),
          }),
    };
  } finally {
    torch.close();
  }
}

async function openTorch(model: PatchableModel, lora: Lora, ids: readonly number[][]): Promise<PythonPeer> {
  const start = Object.entries(lora.parameters).filter(([name]) => name.endsWith(".lora_A.weight"));
  const values = (await model.device.read(start.map(([, tensor]) => tensor))) as Float32Array[];
  const tensors = start.map(([name, { shape }], i) => {
    return { name, stored: "F32", shape, data: new Uint8Array(values[i]!.slice().buffer) };
  });
  const request = {
    model: model.name,
    rank: lora.rank,
    alpha: lora.alpha,
    modules: [...new Set(lora.modules.map((name) => name.slice(name.lastIndexOf(".") + 1)))],
    ids,
    learning_rate: LEARNING_RATE,
    weight_decay: WEIGHT_DECAY,
  };
  return PythonPeer.open("lora_step.py", {
    "start.safetensors": await encodeSafetensors(tensors),
    "request.json": JSON.stringify(request),
  });
}
