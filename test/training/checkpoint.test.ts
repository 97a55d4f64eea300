import { expect, test } from "vitest";
import { CheckpointError } from "../../src/errors.ts";
import { writeSafetensors } from "../../src/model/checkpoint/safetensors/safetensors-writer.ts";
import { memorySource } from "../../src/model/checkpoint/source/sources.ts";
import { loadModel, type PatchableModel } from "../../src/patching/model.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { encodeTraining, restoreTraining, type TrainingSettings } from "../../src/training/checkpoint.ts";
import { shuffledBatch } from "../../src/training/data-order.ts";
import { Lora } from "../../src/training/lora.ts";
import { cosineSchedule } from "../../src/training/schedule.ts";
import { Trainer, weightTensors } from "../../src/training/trainer.ts";
import { collect } from "../helpers/bytes.ts";
import { testDevice } from "../helpers/device.ts";
import { randomIds } from "../helpers/model.ts";

const device = await testDevice();
const STEPS = 5;
const settings = { seed: 3, learningRate: 0.01, modules: ["q_proj"] };

interface Run {
  readonly model: PatchableModel;
  readonly parameters: Readonly<Record<string, Tensor>>;
  readonly trainer: Trainer;
}

/** Everything anew, as in another process. */
async function start(name: string, adapter: boolean): Promise<Run> {
  const model = await loadModel(`test/fixtures/${name}/model`, { device });
  const names = model.parameterNames.filter((each) => /\.0\..*(c_attn|q_proj|c_fc)\.weight$/.test(each));
  const parameters = adapter ? new Lora(model, { rank: 2, seed: 3 }).parameters : weightTensors(model, names);
  const trainer = new Trainer(model, {
    parameters,
    learningRate: 0.01,
    schedule: (step) => cosineSchedule(step, STEPS, { warmUp: 2 }),
    maxGradNorm: 1,
  });
  return { model, parameters, trainer };
}

async function steps({ model, trainer }: Run, until: number): Promise<number[]> {
  const items = [7, 5, 6, 9, 4].map((length, i) => model.promptFromIds(randomIds(length, i)));
  const losses: number[] = [];
  while (trainer.optimizer.steps < until) {
    const step = trainer.optimizer.steps;
    const batch = shuffledBatch(items.length, 2, { step, seed: 3 }).map((i) => items[i]!);
    losses.push(await trainer.step(batch).loss.item());
  }
  return losses;
}

async function state({ trainer }: Run): Promise<Record<string, number[]>> {
  const found: Record<string, number[]> = {};
  for (const [name, tensor] of Object.entries(trainer.optimizer.state.tensors)) {
    found[name] = [...(await tensor.read())];
  }
  return found;
}

const written = ({ trainer }: Run, given: TrainingSettings = settings) =>
  collect(encodeTraining(trainer, given));
const restored = ({ trainer }: Run, bytes: Uint8Array, given: TrainingSettings = settings) =>
  restoreTraining(trainer, memorySource(bytes, "saved"), given);

// An adapter, weights in f32, and weights in 16 bits, turned and in parts.
test.each([
  ["llama", true],
  ["llama", false],
  ["gpt2", false],
] as const)(
  "%s, adapter %s: training that goes on is training that never stopped, bit for bit",
  async (name, adapter) => {
    const unbroken = await start(name, adapter);
    const losses = await steps(unbroken, STEPS);

    const killed = await start(name, adapter);
    await steps(killed, 3);
    const bytes = await written(killed);
    const next = await start(name, adapter);
    expect(await restored(next, bytes)).toBe(3);
    expect(await state(next)).toEqual(await state(killed));
    expect(await written(next)).toEqual(bytes);
    expect(await steps(next, STEPS)).toEqual(losses.slice(3));
    expect(await state(next)).toEqual(await state(unbroken));
    for (const [key, tensor] of Object.entries(next.parameters)) {
      expect(await tensor.read(), key).toEqual(await unbroken.parameters[key]!.read());
    }
  },
);

test("a checkpoint of something else is refused, and leaves the trainer as it was", async () => {
  const run = await start("llama", true);
  await steps(run, 1);
  const [bytes, before] = [await written(run), await state(run)];
  await expect(restored(run, bytes, { ...settings, seed: 4, extra: [1] })).rejects.toThrow(
    "saved is of a training with other settings: seed 3, now 4; extra none, now [1]",
  );
  await expect(restored(await start("gpt2", false), bytes)).rejects.toThrow(
    /saved: .*lora_[AB]\.weight\.\w+: expected nothing, found F32/,
  );
  const other = await collect(
    writeSafetensors([{ name: "x", stored: "F32", shape: [1], data: new Uint8Array(4) }]),
  );
  await expect(restored(run, other)).rejects.toThrow(/saved: expected a checkpoint of a training/);
  const metadata = { format: "xpatch-training", version: "1", step: "2", settings: JSON.stringify(settings) };
  await expect(restored(run, await collect(writeSafetensors([], metadata)))).rejects.toThrow(
    /saved: expected .*\.value, found nothing of that name/,
  );
  for (const change of [{ step: "-1" }, { step: "1e400" }, { settings: "[]" }, { settings: "{" }]) {
    const file = await collect(writeSafetensors([], { ...metadata, ...change }));
    await expect(restored(run, file)).rejects.toThrow(CheckpointError);
  }
  await expect(restored(run, bytes.slice(0, -1))).rejects.toThrow(CheckpointError);
  expect(await state(run)).toEqual(before);
});

test("every epoch has each item once, in an order of its own that the step and the seed alone decide", () => {
  const batches = Array.from({ length: 15 }, (_, step) => shuffledBatch(7, 3, { step, seed: 1 }));
  const all = batches.flat();
  const epochs = Array.from({ length: 6 }, (_, epoch) => all.slice(7 * epoch, 7 * epoch + 7));
  for (const epoch of epochs) expect([...epoch].sort()).toEqual([0, 1, 2, 3, 4, 5, 6]);
  expect(new Set(epochs.map(String)).size).toBeGreaterThan(4);
  expect(shuffledBatch(7, 3, { step: 9, seed: 1 })).toEqual(batches[9]);
  expect(shuffledBatch(7, 7, { step: 0, seed: 2 })).not.toEqual(shuffledBatch(7, 7, { step: 0, seed: 1 }));
  expect(shuffledBatch(2, 5, { step: 0 })).toHaveLength(5);
  expect(() => shuffledBatch(0, 3, { step: 0 })).toThrow(/1 or more, found 0 and 3/);
});
