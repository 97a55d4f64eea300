import { Tape } from "../gradient/tape.ts";
import type { ConfigReader } from "../model/checkpoint/json/config-reader.ts";
import type { Prompt } from "../model/prompt/prompt.ts";
import type { PatchableModel } from "../patching/model.ts";
import { compute } from "../patching/run.ts";
import { nextTokenLoss } from "../patching/run-metric.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { AdamWOptions } from "../training/adamw.ts";
import { Lora } from "../training/lora.ts";
import { Trainer, weightTensors } from "../training/trainer.ts";
import type { Check } from "./checks.ts";
import type { GradientFile } from "./gradients.ts";

/** Repeats the training steps that a folder's gradients come with. Changes the model's weights: to be done last. */
export async function checkTraining(
  file: GradientFile,
  model: PatchableModel,
  prompt: Prompt,
): Promise<Check[]> {
  const checks: Check[] = [];
  if (file.goldens.has("lora/losses")) checks.push(...(await checkLora(file, model, prompt)));
  if (file.goldens.has("adamw/losses")) checks.push(...(await checkAdamW(file, model, prompt)));
  return checks;
}

/** Losses before each step and after the last, and the norms of the gradients. */
async function train(
  trainer: Trainer,
  prompt: Prompt,
  steps: number,
): Promise<{ losses: number[]; norms: number[] }> {
  const [losses, norms]: [number[], number[]] = [[], []];
  for (let step = 0; step < steps; step++) {
    const { loss, gradNorm } = trainer.step([prompt]);
    losses.push(await loss.item());
    norms.push(await gradNorm.item());
    loss.dispose();
    gradNorm.dispose();
  }
  const last = trainer.evaluate([prompt]);
  losses.push(await last.item());
  last.dispose();
  return { losses, norms };
}

function optimizerOptions(spec: ConfigReader): AdamWOptions {
  return {
    learningRate: spec.number("lr"),
    betas: spec.value("betas") as [number, number],
    eps: spec.number("eps"),
    weightDecay: spec.number("weight_decay"),
    maxGradNorm: spec.number("max_grad_norm"),
  };
}

async function checkTrajectory(
  file: GradientFile,
  kind: "lora" | "adamw",
  { losses, norms }: { losses: readonly number[]; norms: readonly number[] },
): Promise<Check[]> {
  return [
    file.check(`${kind}/losses`, losses, await file.read(`${kind}/losses`), 1),
    file.check(`${kind}/grad_norms`, norms, await file.read(`${kind}/grad_norms`), 1),
  ];
}

async function checkLora(file: GradientFile, model: PatchableModel, prompt: Prompt): Promise<Check[]> {
  const spec = file.json.section("lora");
  const modules = spec.value("modules") as string[];
  using lora = new Lora(model, { rank: spec.count("rank"), alpha: spec.number("alpha"), modules });
  const { device } = model;
  for (const module of modules) {
    const a = await file.read(`lora/start/${module}.A`);
    device.write(lora.parameters[`${module}.lora_A.weight`]!, new Uint8Array(a.slice().buffer));
  }
  using trainer = new Trainer(model, { parameters: lora.parameters, ...optimizerOptions(spec) });
  const checks = await checkTrajectory(file, "lora", await train(trainer, prompt, spec.count("steps")));
  for (const module of modules) {
    for (const half of ["A", "B"]) {
      const name = `lora/end/${module}.${half}`;
      checks.push(
        file.checkNorm(
          name,
          [await lora.parameters[`${module}.lora_${half}.weight`]!.read()],
          await file.read(name),
        ),
      );
    }
  }
  return checks;
}

async function checkAdamW(file: GradientFile, model: PatchableModel, prompt: Prompt): Promise<Check[]> {
  const spec = file.json.section("adamw");
  const names = parametersOf(model, prompt);
  const compared = file.names("adamw/change/");
  const before = await wholes(model, compared);
  using trainer = new Trainer(model, { parameters: weightTensors(model, names), ...optimizerOptions(spec) });
  const checks = await checkTrajectory(file, "adamw", await train(trainer, prompt, spec.count("steps")));
  const after = await wholes(model, compared);
  for (const [i, name] of compared.entries()) {
    const found = file.rowsOf(name, after[i]!);
    const change = found.map((x, j) => x - file.rowsOf(name, before[i]!)[j]!);
    checks.push(
      file.check(`adamw/${name}`, found, await file.read(`adamw/${name}`)),
      file.checkNorm(`adamw/change/${name}`, [change], await file.read(`adamw/change/${name}`)),
    );
  }
  return checks;
}

/** The parameters that the loss comes from. */
function parametersOf(model: PatchableModel, prompt: Prompt): string[] {
  const { device, loaded } = model;
  return device.scope(() => {
    using tape = new Tape(device);
    const watched = [...loaded.parameters].map(([name, { tensors }]) => ({
      name,
      nodes: tensors.map((tensor) => tape.watch(tensor).node),
    }));
    compute("train", model, [prompt], {}, { metric: nextTokenLoss(), back: { tape } });
    return watched.filter(({ nodes }) => nodes.every((node) => node.reached)).map(({ name }) => name);
  });
}

/** Weights in the shapes that the checkpoint has them in. */
async function wholes({ device, loaded }: PatchableModel, names: readonly string[]): Promise<Float32Array[]> {
  const scope = device.openScope();
  try {
    const tensors = names.map((name): Tensor => {
      const { tensors, whole } = loaded.parameters.get(name)!;
      return scope.enter(() => whole(tensors));
    });
    return (await device.read(tensors)) as Float32Array[];
  } finally {
    scope.dispose();
  }
}
