import { beforeAll, describe, expect, test } from "vitest";
import { HEAD_OF, LAYER_OF } from "../../scripts/known-circuit/circuit.ts";
import { functionVector } from "../../src/analysis/heads/function-vector.ts";
import { ArgumentError, PromptError } from "../../src/errors.ts";
import { addVector, set } from "../../src/patching/edit.ts";
import { logProbability, measure, resolveMetric } from "../../src/patching/metric.ts";
import { loadModel, type PatchableModel } from "../../src/patching/model.ts";
import { tap } from "../../src/patching/tap.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { expectClose } from "../helpers/compare.ts";
import { testDevice } from "../helpers/device.ts";
import { ASKED, answerOf, examplesOf, loadVariant, prompt, says } from "../helpers/known-circuit.ts";

describe("the function vector of a task of the known circuit", () => {
  let model: PatchableModel;
  beforeAll(async () => {
    model = await loadVariant("model");
  });

  const shown = (t: number) => ASKED.map((item) => prompt(model, item, examplesOf(t, item)));
  /** Each country with another's answer: no task to be read. */
  const permuted = (t: number) =>
    ASKED.slice(0, 6).map((item) => {
      const examples = examplesOf(t, item).map(([one], i, all): [string, string] => {
        return [one, all[(i + 1) % all.length]![1]];
      });
      const answer = model.tokenizer.idOf(answerOf(t, item))!;
      return { prompt: prompt(model, item, examples), answer };
    });
  const task = (t: number, options: object = {}) =>
    functionVector(model, shown(t), { corrupted: permuted(t), metric: logProbability, ...options });

  test("finds the head that gathers the task", async () => {
    for (const t of [0, 1, 2]) {
      using found = await task(t, { heads: 1 });
      const [first, second] = found.ranked;
      const [layer, head] = HEAD_OF.gather;
      expect(found.heads).toEqual([{ layer, head, effect: first!.effect }]);
      expect(first!.effect).toBeGreaterThan(3 * Math.abs(second!.effect));
    }
  });

  test("is the sum of what its heads write, and makes bare questions answer the task", async () => {
    for (const t of [0, 1]) {
      using found = await task(t, { heads: 1 });
      const edits = [addVector(`resid_post.${LAYER_OF.gather}`, -1, found.vector)];
      const bare = ASKED.map((item) => prompt(model, item));
      expect(await says(model, bare, edits)).toEqual(ASKED.map((item) => answerOf(t, item)));
      expect(await says(model, bare)).toEqual(ASKED);
    }
  });

  test("estimates overlook that head: behind it are gates, which are flat where there is no task", async () => {
    using exact = await task(0);
    using estimate = await task(0, { method: "attribution" });
    const [layer, head] = HEAD_OF.gather;
    const effectIn = ({ ranked }: typeof exact) =>
      ranked.find((each) => each.layer === layer && each.head === head)!.effect;
    expect(effectIn(estimate)).toBeLessThan(0.2 * effectIn(exact));
  });

  test("prints its heads", async () => {
    using found = await task(0, { heads: 2 });
    const text = `${found}`;
    expect(text).toMatch(/^function vector of 2 heads, from 12 examples and 6 corrupted prompts \(metric -/);
    expect(text).toContain(`\n${HEAD_OF.gather.join(".")} `);
    expect(found.setting.family).toBe("llama");
  });
});

describe("of a model with random weights", () => {
  let model: PatchableModel;
  beforeAll(async () => {
    model = await loadModel("test/fixtures/llama-gqa-tied/model", { device: await testDevice() });
  });

  const prompts = () =>
    [
      [5, 9, 30, 41, 7],
      [8, 3, 77],
      [60, 61, 12, 40, 2, 9],
    ].map((ids) => model.promptFromIds(ids));
  const corrupted = () =>
    [
      [4, 19, 33],
      [70, 6, 5, 18],
    ].map((ids, i) => ({ prompt: model.promptFromIds(ids), answer: 20 + i }));

  /** z at the last position by head, averaged over the prompts. */
  async function meanOutputs(layer: number): Promise<number[][]> {
    const { heads, headDim } = model.config;
    const z = await model.run(prompts(), { taps: { z: tap(`z.${layer}`, -1) } }).z.read(); // [prompts, heads * headDim]
    const means = Array.from({ length: heads * headDim }, (_, i) =>
      prompts().reduce((all, _, p) => all + z[p * heads * headDim + i]! / prompts().length, 0),
    );
    return Array.from({ length: heads }, (_, head) => means.slice(head * headDim, (head + 1) * headDim));
  }

  test("effects are those of full runs with the mean output in a head's place", async () => {
    using found = await functionVector(model, prompts(), { corrupted: corrupted(), metric: logProbability });
    for (const { layer, head, effect } of found.ranked.slice(0, 4)) {
      const own = (await meanOutputs(layer))[head]!;
      let expected = 0;
      for (const { prompt, answer } of corrupted()) {
        const metric = resolveMetric("test", model, logProbability(answer));
        const edits = [set(`z.${layer}`, -1, own, { head })];
        const values = [model.run(prompt, { edits }), model.run(prompt)].map(({ logits }) => {
          const row = logits!.reshape([1, logits!.size]);
          return measure(metric, row, row).read();
        });
        const [after, before] = await Promise.all(values);
        expected += (after![0]! - before![0]!) / 2;
      }
      expect(effect).toBeCloseTo(expected, 4);
    }
  });

  test("of all heads is what attention adds, without the projection's bias", async () => {
    const { layers, heads } = model.config;
    using found = await functionVector(model, prompts(), { corrupted: corrupted(), heads: layers * heads });
    const { x } = model.run(prompts(), { taps: { x: tap("attn_out.*", -1) } });
    const values = await Promise.all(Object.values<Tensor>(x).map((one) => one.read())); // [prompts, width] each
    const { width } = model.config;
    const expected = new Float32Array(width).map((_, i) =>
      values.reduce((all, one) => all + (one[i]! + one[width + i]! + one[2 * width + i]!) / 3, 0),
    );
    expectClose(await found.vector.read(), expected, { atol: 1e-5, rtol: 1e-4 });
  });

  test("estimates are changes times gradients, summed over a head", async () => {
    const options = { corrupted: corrupted(), metric: logProbability, method: "attribution" } as const;
    using found = await functionVector(model, prompts(), options);
    const { headDim } = model.config;
    for (const { layer, head, effect } of found.ranked.slice(0, 4)) {
      const mean = (await meanOutputs(layer))[head]!;
      let expected = 0;
      for (const { prompt, answer } of corrupted()) {
        const site = `z.${layer}` as const;
        const taps = { z: tap(site, -1) };
        const back = model.gradients(prompt, logProbability(answer), { of: [site], at: -1, taps });
        const [z, gradient] = [await back.z.read(), await back.gradients[site]!.read()];
        mean.forEach((x, i) => {
          const at = head * headDim + i;
          expected += ((x - z[at]!) * gradient[at]!) / 2;
        });
      }
      expect(effect).toBeCloseTo(expected, 4);
    }
  });

  test("what it cannot take is refused", async () => {
    const given = { corrupted: corrupted() };
    await expect(functionVector(model, [], given)).rejects.toThrow(PromptError);
    await expect(functionVector(model, prompts(), { corrupted: [] })).rejects.toThrow(/found 3 and 0/);
    await expect(functionVector(model, prompts(), { ...given, heads: 1000 })).rejects.toThrow(ArgumentError);
    await expect(functionVector(model, prompts(), { ...given, heads: 0 })).rejects.toThrow(/from 1/);
    await expect(
      functionVector(model, prompts(), { corrupted: [{ prompt: prompts()[0]!, answer: "two words here" }] }),
    ).rejects.toThrow(/corrupted\[0\]\.answer/);
    await expect(functionVector(model, prompts(), { ...given, method: "guess" as "exact" })).rejects.toThrow(
      /method/,
    );
  });
});
