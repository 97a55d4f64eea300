import fc from "fast-check";
import { beforeAll, describe, expect, test } from "vitest";
import { attentionMaps, imagePatches, rolloutMaps } from "../../src/analysis/heads/attention-map.ts";
import { rollout } from "../../src/analysis/heads/rollout.ts";
import { PromptError, ShapeError, SiteError } from "../../src/errors.ts";
import { loadImage } from "../../src/images/files/load.ts";
import type { Prompt } from "../../src/model/prompt/prompt.ts";
import type { PromptImage } from "../../src/model/prompt/prompt-image.ts";
import { loadDualEncoder } from "../../src/patching/dual-encoder.ts";
import { loadModel, type PatchableModel } from "../../src/patching/model.ts";
import { tap } from "../../src/patching/tap.ts";
import type { Device } from "../../src/tensor/device.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { expectClose, randomArray } from "../helpers/compare.ts";
import { testDevice } from "../helpers/device.ts";

let device: Device;
let model: PatchableModel;
let two: Prompt<PromptImage>;

beforeAll(async () => {
  device = await testDevice();
  model = await loadModel("test/fixtures/llava/model", { device });
  const [tall, photo] = await Promise.all(
    ["tall", "photo"].map((name) => loadImage(`test/fixtures/images/${name}.png`)),
  );
  two = model.prompt(["Q:", tall!, "\nA: red\n\nQ:", photo!, "\nA:"]);
});

/** The paper's own form: the product of 0.5 * (mean of heads) + 0.5 * identity, last layer first; all its rows. */
function rolloutMatrix(patterns: readonly ArrayLike<number>[], heads: number, rows: number): number[][] {
  let product = identity(rows);
  for (const pattern of patterns) {
    const layer = identity(rows).map((row, i) =>
      row.map((one, j) => {
        let sum = 0;
        for (let h = 0; h < heads; h++) sum += pattern[(h * rows + i) * rows + j]!;
        return 0.5 * one + (0.5 * sum) / heads;
      }),
    );
    product = layer.map((row) =>
      product[0]!.map((_, j) => row.reduce((sum, weight, k) => sum + weight * product[k]![j]!, 0)),
    );
  }
  return product;
}

function identity(rows: number): number[][] {
  return Array.from({ length: rows }, (_, i) => Array.from({ length: rows }, (_, j) => (i === j ? 1 : 0)));
}

/** Heads of rows that are positive and sum to 1. */
function randomPattern(heads: number, rows: number, seed: number): Float32Array<ArrayBuffer> {
  const values = randomArray(heads * rows * rows, seed).map((x) => x + 1.01);
  for (let at = 0; at < values.length; at += rows) {
    const row = values.subarray(at, at + rows);
    const sum = row.reduce((a, b) => a + b);
    row.forEach((value, i) => {
      row[i] = value / sum;
    });
  }
  return values;
}

describe("rollout", () => {
  test("equals the paper's product of matrices", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 4 }),
        fc.integer({ min: 1, max: 3 }),
        fc.integer({ min: 1, max: 19 }),
        fc.nat(),
        async (layers, heads, rows, seed) => {
          const data = Array.from({ length: layers }, (_, i) => randomPattern(heads, rows, seed + i));
          const patterns = data.map((values) => device.tensor(values, { shape: [heads, rows, rows] }));
          const position = seed % rows;
          const found = await rollout(patterns, position).read();
          expectClose(found, rolloutMatrix(data, heads, rows)[position]!, { atol: 1e-6 });
          for (const pattern of patterns) pattern.dispose();
        },
      ),
      { numRuns: 25 },
    );
  });

  test("works on the vision tower of CLIP: from the class token to the patches", async () => {
    using clip = await loadDualEncoder("test/fixtures/clip/model", { device });
    const picture = await loadImage("test/fixtures/images/photo.png");
    const taps = { a: tap("vision.pattern.0"), b: tap("vision.pattern.1"), c: tap("vision.pattern.2") };
    const { a, b, c } = clip.images([picture], { taps });
    const patterns = [a, b, c].map((tapped) => (tapped as Tensor[])[0]!);
    const [heads, rows] = patterns[0]!.shape as [number, number];
    const found = await rollout(patterns, 0).read();
    const data = await device.read(patterns);
    expectClose(found, rolloutMatrix(data, heads, rows)[0]!, { atol: 1e-6 });
    expect([...found].reduce((sum, weight) => sum + weight)).toBeCloseTo(1, 5);
  });

  test("refuses what are no patterns, and positions outside of them", () => {
    const pattern = device.zeros([2, 3, 3]);
    expect(() => rollout([], 0)).toThrow(ShapeError);
    expect(() => rollout([pattern], 3)).toThrow(/a position from 0 to 2, found 3/);
    expect(() => rollout([pattern, device.zeros([2, 4, 4])], 0)).toThrow(
      /\[heads, 3, 3\], found \[2, 4, 4\]/,
    );
    expect(() => rollout([device.zeros([3, 3])], 0)).toThrow(ShapeError);
  });
});

describe("attention maps", () => {
  test("are the columns of an image in a token's pattern", async () => {
    const { start, end } = two.span("image2");
    const maps = await attentionMaps(model, two, { span: "image2", head: 2, layers: [0, 2] });
    expect(maps.map(({ layer, head, grid }) => ({ layer, head, grid }))).toEqual([
      { layer: 0, head: 2, grid: { rows: 4, columns: 4 } },
      { layer: 2, head: 2, grid: { rows: 4, columns: 4 } },
    ]);
    for (const { layer, weights, share } of maps) {
      const { row } = model.run(two, { taps: { row: tap(`pattern.${layer}`, -1, { head: 2 }) } });
      const expected = [...(await row.read())].slice(start, end);
      // Where an earlier layer's pattern is tapped too, attention takes another kernel, which rounds differently.
      expectClose(weights, expected, { atol: 1e-6 });
      expect(share).toBeCloseTo(
        expected.reduce((a, b) => a + b),
        6,
      );
    }
  });

  test("without a head are the mean of all", async () => {
    const each = await Promise.all(
      [0, 1, 2, 3].map((head) => attentionMaps(model, two, { layers: [1], head })),
    );
    const [mean] = await attentionMaps(model, two, { layers: [1] });
    const expected = mean!.weights.map(
      (_, i) => each.reduce((sum, [map]) => sum + map!.weights[i]!, 0) / each.length,
    );
    expectClose(mean!.weights, expected, { atol: 1e-6 });
    expect(mean!.head).toBeUndefined();
  });

  test("of a token before the image are empty, since attention is causal", async () => {
    const maps = [
      ...(await attentionMaps(model, two, { at: 1 })),
      ...(await rolloutMaps(model, two, { at: 1 })),
    ];
    expect(maps).toHaveLength(6);
    for (const { share } of maps) expect(share).toBe(0);
  });

  test("of rollout equal the rollout of the tapped patterns, up to each layer", async () => {
    const taps = { a: tap("pattern.0"), b: tap("pattern.1"), c: tap("pattern.2") };
    const { a, b, c } = model.run(two, { taps });
    const data = await device.read([a, b, c]);
    const { start, end } = two.span("image");
    const maps = await rolloutMaps(model, two, { layers: [0, 2] });
    expect(maps.map((map) => map.layer)).toEqual([0, 2]);
    for (const { layer, weights } of maps) {
      const all = rolloutMatrix(data.slice(0, layer + 1), 4, two.length)[two.last]!;
      expectClose(weights, all.slice(start, end), { atol: 1e-6 });
    }
  });

  test("leave nothing behind on the device", async () => {
    const before = device.memory.liveBuffers;
    await attentionMaps(model, two);
    await rolloutMaps(model, two);
    expect(device.memory.liveBuffers).toBe(before);
  });

  test("of rollout tell how far they are, with the same numbers", async () => {
    const told: number[] = [];
    const maps = await rolloutMaps(model, two, { layers: [0, 1], onProgress: (done) => told.push(done) });
    expect(told).toEqual([1, 2]);
    expect(maps).toEqual(await rolloutMaps(model, two, { layers: [0, 1] }));
  });

  test("of rollout end at the layer at which they are given up, and leave nothing behind", async () => {
    const before = device.memory.liveBuffers;
    const told: number[] = [];
    const given = rolloutMaps(model, two, {
      onProgress(done) {
        told.push(done);
        if (done === 2) throw new Error("given up");
      },
    });
    await expect(given).rejects.toThrow("given up");
    expect(told).toEqual([1, 2]);
    expect(device.memory.liveBuffers).toBe(before);
  });

  test("need an image with a grid, and layers and heads that exist", async () => {
    const text = model.prompt([{ text: "Q: red", name: "question" }, "\nA:"]);
    await expect(attentionMaps(model, text)).rejects.toThrow(/no span "image"; it has question/);
    expect(() => imagePatches(text, "question")).toThrow(PromptError);
    await expect(attentionMaps(model, two, { head: 4 })).rejects.toThrow(/a head from 0 to 3, found head 4/);
    await expect(attentionMaps(model, two, { layers: [3] })).rejects.toThrow(
      /layers from 0 to 2 .*, found 3/,
    );
    await expect(attentionMaps(model, two, { layers: [] })).rejects.toThrow(SiteError);
    await expect(rolloutMaps(model, two, { layers: [3] })).rejects.toThrow(/layers from 0 to 2 .*, found 3/);
    await expect(rolloutMaps(model, two, { at: 99 })).rejects.toThrow(PromptError);
  });
});
