import { expect, test } from "vitest";
import { LAYER_OF } from "../../scripts/known-circuit/circuit.ts";
import { ITEMS, TASK_WORDS } from "../../scripts/known-circuit/facts.ts";
import {
  findSubspace,
  type InterchangePair,
  type SubspaceOptions,
} from "../../src/analysis/vectors/find-subspace.ts";
import { Subspace } from "../../src/analysis/vectors/subspace.ts";
import { expectClose } from "../helpers/compare.ts";
import { answerOf, examplesOf, loadVariant, prompt, says } from "../helpers/known-circuit.ts";

const model = await loadVariant("rotated");
const { device } = model;

/** A question behind an example of one task, and another behind one of another: the first is to be answered as if by the latter. */
function pairOf(i: number): InterchangePair {
  const [item, other] = [ITEMS[(7 * i) % 100]!, ITEMS[(13 * i + 31) % 100]!];
  const own = i % TASK_WORDS.length;
  const task = (own + 1 + (Math.floor(i / 3) % 2)) % TASK_WORDS.length;
  return {
    base: prompt(model, item, examplesOf(own, item, 1)),
    source: prompt(model, other, examplesOf(task, other, 1)),
    expected: answerOf(task, item),
  };
}
const pairs = Array.from({ length: 96 }, (_, i) => pairOf(i));
const heldOut = Array.from({ length: 24 }, (_, i) => pairOf(100 + i));
const optionsAt = (layer: number): SubspaceOptions => ({
  site: `resid_post.${layer}`,
  at: -1,
  rank: 2, // three tasks: their differences span two dimensions
  steps: 60,
  learningRate: 0.03,
  batch: 12,
  heldOut,
});

test("a task is found where the circuit has it: in a subspace, orthonormal, and by edits", async () => {
  const found = await findSubspace(model, pairs, optionsAt(LAYER_OF.gather + 1));
  const { subspace, basis, accuracyBefore, accuracyAfter, accuracyWhole } = found;
  expect(accuracyBefore).toBeLessThan(0.1);
  expect(accuracyAfter).toBeGreaterThan(0.9);
  expect(accuracyWhole).toBe(1);

  const { width } = model.config;
  expect(basis.shape).toEqual([2, width]);
  const rows = await basis.read();
  const dot = (a: number, b: number) =>
    Array.from({ length: width }, (_, i) => rows[a * width + i]! * rows[b * width + i]!).reduce(
      (x, y) => x + y,
    );
  expectClose([dot(0, 0), dot(0, 1), dot(1, 1)], [1, 0, 1], { atol: 1e-5 });

  // By edits, one prompt and several.
  const [first, second] = heldOut as [InterchangePair, InterchangePair];
  const several = subspace.swap(model, [first.base, second.base], [first.source, second.source]);
  expect(await says(model, [first.base, second.base], several)).toEqual([first.expected, second.expected]);
  expect(await says(model, [first.base], subspace.swap(model, first.base, first.source))).toEqual([
    first.expected,
  ]);
  expect(() => subspace.swap(model, [first.base], [])).toThrow(/a source for each base, found 1 and 0/);
});

test.each([LAYER_OF.gather - 1, LAYER_OF.apply + 1])(
  "nothing is found behind layer %i, where there is no task yet, or only its answer",
  async (layer) => {
    const { accuracyAfter, accuracyWhole, losses } = await findSubspace(model, pairs, {
      ...optionsAt(layer),
      steps: 15,
    });
    expect(losses.at(-1)).toBeLessThan(losses[0]!);
    expect(accuracyAfter).toBeLessThan(0.1);
    expect(accuracyWhole).toBeLessThan(0.2); // some sources have the expected answer themselves
  },
);

test("an exchange gives the source's component and keeps the rest of the base", async () => {
  const basis = device.tensor([0.6, 0.8, 0], { shape: [1, 3] });
  const [base, source] = [
    device.tensor([1, 2, 3], { shape: [1, 3] }),
    device.tensor([5, 0, 9], { shape: [1, 3] }),
  ];
  const exchanged = new Subspace(basis, "resid_post.0", -1).exchange(base, source);
  expectClose(await exchanged.read(), [1 + 0.8 * 0.6, 2 + 0.8 * 0.8, 3], { atol: 1e-6 });
});

test("the same call finds the same, and every fourth pair is held out unless some are given", async () => {
  const { heldOut: _, ...options } = { ...optionsAt(4), steps: 2, rank: 1 };
  const four = pairs.slice(0, 4);
  const [once, again] = [await findSubspace(model, four, options), await findSubspace(model, four, options)];
  expect(await again.basis.read()).toEqual(await once.basis.read());
  const byHand = { ...options, heldOut: four.slice(3) };
  expect((await findSubspace(model, four.slice(0, 3), byHand)).losses).toEqual(once.losses);
  const other = await findSubspace(model, four, { ...options, seed: 1 });
  expect(other.losses).not.toEqual(once.losses);
});

test("what cannot be found is refused by name", async () => {
  const refused = (options: object, message: RegExp, of: readonly InterchangePair[] = pairs) =>
    expect(findSubspace(model, of, { ...optionsAt(4), ...options })).rejects.toThrow(message);
  await refused({ rank: 181 }, /rank of at most 180, the width of resid_post.4, found 181/);
  await refused({ rank: 0 }, /expected rank to be a whole number from 1/);
  await refused({ site: "pattern.3" }, /holds a vector a token, as resid_post.3, found pattern.3/);
  await refused({ at: 0 }, /step 0: the answers do not depend on resid_post.4/); // all prompts begin alike
  await refused({ heldOut: undefined }, /at least 4 pairs, one of them held out, found 3/, pairs.slice(0, 3));
  await refused({ heldOut: [] }, /found 96 and 0/);
  await refused({}, /pairs\[0\].expected: expected a token id from 0 to/, [{ ...pairs[0]!, expected: 9999 }]);
  await refused({}, /pairs\[0\]: expected source to be/, [{ ...pairs[0]!, source: "x" as never }]);
});
