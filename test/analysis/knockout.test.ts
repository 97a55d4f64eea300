import { inspect } from "node:util";
import { describe, expect, test } from "vitest";
import { LAYER_OF } from "../../scripts/known-circuit/circuit.ts";
import { knockout, knockoutSweep } from "../../src/analysis/maps/knockout.ts";
import { logitDifference } from "../../src/patching/metric.ts";
import { tap } from "../../src/patching/tap.ts";
import { expectClose } from "../helpers/compare.ts";
import { examplesOf, loadVariant, prompt } from "../helpers/known-circuit.ts";
import { fixtureModel, randomIds } from "../helpers/model.ts";

const LENGTH = 7;

describe.each(["llama-gqa-tied", "gemma2", "gpt2", "qwen3"])("%s", (name) => {
  test("what is cut has no weight, and the rest has it all", async () => {
    const model = await fixtureModel(name);
    const sequence = model.promptFromIds(randomIds(LENGTH, 5));
    const edits = knockout(model, sequence, { from: [4, 6], to: { start: 1, end: 4 }, layers: [0] });
    const plain = model.run(sequence, { taps: { x: tap("pattern.0") } });
    const cut = model.run(sequence, { edits, taps: { x: tap("pattern.0") } });
    const [heads] = plain.x.shape;
    const before = await plain.x.read();
    const expected = Array.from(before, (weight, i) => {
      const [row, key] = [Math.floor(i / LENGTH) % LENGTH, i % LENGTH];
      if (row !== 4 && row !== 6) return weight;
      if (key >= 1 && key < 4) return 0;
      const own = before.subarray(i - key, i - key + LENGTH);
      return weight / (1 - own[1]! - own[2]! - own[3]!);
    });
    expect(expected).toHaveLength(heads! * LENGTH * LENGTH);
    expectClose(await cut.x.read(), expected, { atol: 1e-6, rtol: 1e-4 });
  });

  test("a sweep has the values of full runs", async () => {
    const model = await fixtureModel(name);
    const sequence = model.promptFromIds(randomIds(LENGTH, 5));
    const cut = { from: -1, to: [1, 2, 3] } as const;
    const sweep = await knockoutSweep(model, sequence, {
      ...cut,
      window: 2,
      metric: logitDifference(30, 40),
    });
    const metric = async (edits: ReturnType<typeof knockout>) => {
      const logits = await model.run(sequence, { edits }).logits!.read();
      return logits[30]! - logits[40]!;
    };
    const last = model.config.layers - 1;
    expect(sweep.layers.map(({ cut }) => cut)).toEqual(
      [...Array(last + 1).keys()].map((first) => ({ first, last: Math.min(first + 1, last) })),
    );
    for (const { cut: layers, value, change } of sweep.layers) {
      const edits = knockout(model, sequence, { ...cut, layers: [...new Set([layers.first, layers.last])] });
      expectClose([value], [await metric(edits)], { atol: 2e-5, rtol: 1e-4 });
      expect(Math.abs(change)).toBeGreaterThan(1e-5);
      expectClose([sweep.value + change], [value], { atol: 1e-6, rtol: 1e-6 });
    }
    expectClose([sweep.value], [await metric([])], { atol: 1e-6, rtol: 1e-6 });
  });
});

test("a token with no key left attends to nothing", async () => {
  const model = await fixtureModel("llama");
  const sequence = model.promptFromIds(randomIds(LENGTH, 5));
  const edits = knockout(model, sequence, { from: 2, to: [0, 1, 2], layers: [1], heads: [0] });
  const { z } = model.run(sequence, { edits, taps: { z: tap("z.1", 2, { head: 0 }) } });
  expect([...(await z.read())]).toEqual(Array(z.size).fill(0));
});

test("is of one prompt of several, where that is named", async () => {
  const model = await fixtureModel("llama");
  const [a, b] = [LENGTH, LENGTH + 2].map((length) => model.promptFromIds(randomIds(length, 5)));
  const edits = knockout(model, b!, { from: -1, to: [0, 1], layers: [0, 1], prompt: 1 });
  const { logits } = model.run([a!, b!], { edits });
  const alone = model.run(b!, { edits: knockout(model, b!, { from: -1, to: [0, 1], layers: [0, 1] }) });
  const [both, plain, cut] = await Promise.all(
    [logits as never as typeof alone.logits, model.run(a!).logits, alone.logits].map((x) => x!.read()),
  );
  expectClose(both!, [...plain!, ...cut!], { atol: 1e-5, rtol: 1e-4 });
});

test("in the known circuit the task is lost without the layer that gathers it", async () => {
  const model = await loadVariant("model");
  const shown = examplesOf(0, "Boravia");
  const sequence = prompt(model, "Boravia", shown);
  const answers = new Set(shown.map(([, answer]) => answer));
  const to = sequence.tokens.flatMap((token, i) => (answers.has(token) ? [i] : []));
  expect(to).toHaveLength(shown.length);
  const sweep = await knockoutSweep(model, sequence, { from: -1, to });
  const lost = sweep.layers.filter(({ change }) => Math.abs(change) > 0.05);
  expect(lost.map(({ layer }) => layer)).toEqual([LAYER_OF.gather]);
  const wide = await knockoutSweep(model, sequence, { from: -1, to, window: 3, layers: [2, 3, 4, 5] });
  expect(wide.layers.filter(({ change }) => change < -1).map(({ layer }) => layer)).toEqual([2, 3, 4]);
  expect(inspect(wide)).toMatch(/\nattention from position -1 to positions .* cut in 3 layers at once\n/);
  expect(`${wide}`).toMatch(/\n2 +1 to 3 +-?\d/);
});

test.each<[string, object, RegExp]>([
  ["layers that there are not", { layers: [3] }, /knockout: expected layers from 0 to 2 .*, found 3/],
  ["heads that there are not", { heads: [7] }, /head 7/],
  ["positions that there are not", { to: 9 }, /found 9/],
  ["keys behind the queries", { from: 1, to: [2, 3] }, /position 1, before all of positions 2, 3/],
  ["options that there are not", { layer: 1 }, /has no "layer"; the nearest is "layers"/],
])("refuses %s", async (_, change, message) => {
  const model = await fixtureModel("llama");
  const sequence = model.promptFromIds(randomIds(LENGTH, 5));
  const options = { from: -1, to: 0, layers: [1], ...change };
  expect(() => model.run(sequence, { edits: knockout(model, sequence, options) })).toThrow(message);
});
