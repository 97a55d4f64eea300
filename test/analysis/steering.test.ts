import { expect, test } from "vitest";
import { type SteeringOptions, trainSteering } from "../../src/analysis/vectors/steering.ts";
import { decodeTaskVectors, encodeTaskVectors } from "../../src/analysis/vectors/task-vectors.ts";
import { addVector } from "../../src/patching/edit.ts";
import { nextTokenLoss } from "../../src/patching/run-metric.ts";
import { randomArray } from "../helpers/compare.ts";
import { testDevice } from "../helpers/device.ts";
import { fixtureModel, randomIds } from "../helpers/model.ts";

const device = await testDevice();
const model = await fixtureModel("llama");
const { width } = model.config;
const prompts = [7, 5, 6].map((length, i) => model.promptFromIds(randomIds(length, i)));
const OPTIONS: SteeringOptions = { site: "resid_post.1", at: 2, steps: 8, learningRate: 0.1, loss: [3, 4] };

test("from zero the vector lowers the loss, which an edit with it has too; again it is the same", async () => {
  const { vectors, losses, before, after } = await trainSteering(model, prompts, OPTIONS);
  expect(losses).toHaveLength(8);
  expect(losses[0]).toBeCloseTo(before, 5);
  expect(after).toBeLessThan(losses.at(-1)!);
  expect(after).toBeLessThan(before - 0.3);
  const lossWith = async (edits: ReturnType<typeof addVector>[]) => {
    const { metric } = model.gradients(prompts, nextTokenLoss([3, 4]), { edits, of: "logits", at: -1 });
    return (await metric.read()).reduce((sum, x) => sum + x / prompts.length, 0);
  };
  expect(await lossWith([])).toBeCloseTo(before, 5);
  expect(await lossWith([addVector("resid_post.1", 2, vectors.at(1))])).toBeCloseTo(after, 5);

  const again = await trainSteering(model, prompts, OPTIONS);
  expect(await again.vectors.vectors.read()).toEqual(await vectors.vectors.read());
  const loaded = await decodeTaskVectors(await encodeTaskVectors(vectors), device);
  expect(await loaded.at(1).read()).toEqual(await vectors.at(1).read());
  expect(loaded.origin).toEqual(vectors.origin);
});

test("a start is where training starts from, and stays as it was", async () => {
  const numbers = randomArray(width, 3);
  const given = device.tensor(numbers);
  const still = await trainSteering(model, prompts, { ...OPTIONS, start: given, steps: 1, learningRate: 0 });
  expect(await still.vectors.at(1).read()).toEqual(numbers);
  expect(still.after).toBeCloseTo(still.before, 6);
  const moved = await trainSteering(model, prompts, { ...OPTIONS, start: numbers, steps: 1 });
  expect(moved.before).toBeCloseTo(still.before, 6);
  expect(moved.after).toBeLessThan(moved.before);
  const lengths = (await moved.vectors.at(1).read()).map((x, i) => Math.abs(x - numbers[i]!));
  for (const length of lengths) expect(length).toBeLessThan(0.1001); // one step of AdamW, no decay
  expect(await given.read()).toEqual(numbers);
});

test("batches are drawn by the seed", async () => {
  const train = async (seed: number) =>
    (await trainSteering(model, prompts, { ...OPTIONS, batch: 1, seed })).losses;
  expect(await train(1)).toEqual(await train(1));
  expect(await train(1)).not.toEqual(await train(2));
});

test("what cannot be trained is refused by name", async () => {
  const refused = (options: object, message: RegExp) =>
    expect(trainSteering(model, prompts, { ...OPTIONS, ...options })).rejects.toThrow(message);
  await refused({ site: "pattern.1" }, /holds a vector a token, as resid_post.3, found pattern.1/);
  await refused({ site: "final_norm" }, /found final_norm/);
  await refused({ site: "resid_post.9" }, /resid_post.9: there are 3 layers/);
  await refused({ start: [1, 2] }, /expected a start \[48\], found \[2\]/);
  await refused({ steps: 0 }, /expected steps to be a whole number from 1/);
  await refused({ stpes: 1 }, /the nearest is "steps"/);
  await refused({ loss: [1] }, /positions 1\) does not depend on resid_post.1 at position 2/); // before the vector comes in
  await expect(trainSteering(model, [], OPTIONS)).rejects.toThrow(/at least one prompt/);
});
