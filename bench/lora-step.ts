import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { encodeSafetensors } from "#src/model/checkpoint/safetensors/safetensors-writer";
import type { PatchableModel } from "#src/patching/model";
import { Lora } from "#src/training/lora";
import { Trainer } from "#src/training/trainer";
import { bestAndMedian, rounded } from "./harness.ts";
import type { JobResult } from "./jobs.ts";

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
  const torch = await TorchSteps.open(model, lora, ids);
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
      if (torch.missing === undefined) theirs.push(await torch.step());
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

/** bench/peers/lora_step.py, a step at a time. */
class TorchSteps {
  readonly #process: ChildProcess | undefined;
  readonly #lines: AsyncIterator<string> | undefined;
  readonly #folder: string;
  readonly version: string | undefined;
  /** Why there is none. */
  readonly missing: string | undefined;

  private constructor(
    folder: string,
    rest: { process?: ChildProcess; lines?: AsyncIterator<string>; version?: string; missing?: string },
  ) {
    this.#folder = folder;
    this.#process = rest.process;
    this.#lines = rest.lines;
    this.version = rest.version;
    this.missing = rest.missing;
  }

  static async open(model: PatchableModel, lora: Lora, ids: readonly number[][]): Promise<TorchSteps> {
    const folder = mkdtempSync(join(tmpdir(), "lora-step-"));
    const start = Object.entries(lora.parameters).filter(([name]) => name.endsWith(".lora_A.weight"));
    const values = (await model.device.read(start.map(([, tensor]) => tensor))) as Float32Array[];
    const tensors = start.map(([name, { shape }], i) => {
      return { name, stored: "F32", shape, data: new Uint8Array(values[i]!.slice().buffer) };
    });
    writeFileSync(join(folder, "start.safetensors"), await encodeSafetensors(tensors));
    const request = {
      model: model.name,
      rank: lora.rank,
      alpha: lora.alpha,
      modules: lora.modules.map((name) => name.slice(name.lastIndexOf(".") + 1)),
      ids,
      learning_rate: LEARNING_RATE,
      weight_decay: WEIGHT_DECAY,
    };
    const modules = [...new Set(request.modules)];
    writeFileSync(join(folder, "request.json"), JSON.stringify({ ...request, modules }));
    const script = fileURLToPath(new URL("../../bench/peers/lora_step.py", import.meta.url));
    const python = process.env["PYTHON"] ?? "python3";
    const child = spawn(python, [script, folder], { stdio: ["pipe", "pipe", "pipe"] });
    let complaint = "";
    child.stderr!.on("data", (chunk) => {
      complaint += chunk;
    });
    child.on("error", (error) => {
      complaint += error.message;
    });
    const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
    const first = await lines.next();
    if (first.done) {
      if (child.exitCode === null && child.pid !== undefined) await once(child, "close");
      const missing = `not measured: ${python}: ${complaint.trim().split("\n").at(-1)} (PYTHON names another)`;
      return new TorchSteps(folder, { missing });
    }
    const { version, threads } = JSON.parse(first.value);
    return new TorchSteps(folder, { process: child, lines, version: `${version}, ${threads} threads` });
  }

  async step(): Promise<Step> {
    this.#process!.stdin!.write("step\n");
    const { value, done } = await this.#lines!.next();
    if (done) throw new Error("bench/peers/lora_step.py ended early");
    return JSON.parse(value);
  }

  close(): void {
    this.#process?.stdin?.end();
    rmSync(this.#folder, { recursive: true });
  }
}
