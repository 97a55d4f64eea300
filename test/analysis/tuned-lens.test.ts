import { expect, test } from "vitest";
import { fitTunedLens } from "../../src/analysis/lens/fit-tuned-lens.ts";
import { decodeStream, logitLens } from "../../src/analysis/lens/logit-lens.ts";
import { Moments } from "../../src/analysis/lens/ridge.ts";
import { decodeTunedLens, encodeTaskVectors, encodeTunedLens, extractTaskVectors } from "../../src/index.ts";
import { tap } from "../../src/patching/tap.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { expectClose, randomArray } from "../helpers/compare.ts";
import { testDevice } from "../helpers/device.ts";
import { fixtureModel, randomIds } from "../helpers/model.ts";

const device = await testDevice();
const model = await fixtureModel("llama");
const { width, vocab, layers: depth } = model.config;
const prompts = Array.from({ length: 40 }, (_, i) => model.promptFromIds(randomIds(12 + (i % 5), i)));
const heldOut = [0, 1, 2].map((i) => model.promptFromIds(randomIds(15, 100 + i)));
const lens = await fitTunedLens(model, prompts);

/** The mean of KL(final ‖ lens), in nats, over the positions of held-out prompts, by layer. */
async function divergences(decode: (layer: number, x: Tensor) => Tensor): Promise<number[]> {
  const found: number[] = Array(depth).fill(0);
  for (const prompt of heldOut) {
    const taps = Object.fromEntries(found.map((_, layer) => [`${layer}`, tap(`resid_post.${layer}`, "all")]));
    const result = model.run(prompt, { logits: "all", taps });
    const final = logarithms(await result.logits!.read());
    for (let layer = 0; layer < depth; layer++) {
      const seen = logarithms(await decode(layer, result[`${layer}`] as Tensor).read());
      const sum = final.reduce((total, log, i) => total + Math.exp(log) * (log - seen[i]!), 0);
      found[layer]! += sum / prompt.length / heldOut.length;
    }
  }
  return found;
}

/** Of logits [rows, vocab]: log probabilities. */
function logarithms(logits: ArrayLike<number>): number[] {
  return Array.from({ length: logits.length / vocab }, (_, row) => {
    const own = Array.from({ length: vocab }, (_, i) => logits[row * vocab + i]!);
    const total = Math.log(own.reduce((sum, x) => sum + Math.exp(x), 0));
    return own.map((x) => x - total);
  }).flat();
}

test("on prompts that it has not seen it is nearer to the final distribution than the logit lens, in every layer but the last", async () => {
  const tuned = await divergences((layer, x) => lens.decode(model, layer, x));
  const plain = await divergences((_, x) => decodeStream(model, x));
  for (let layer = 0; layer < depth - 1; layer++) expect(tuned[layer]).toBeLessThan(0.9 * plain[layer]!);
  expect(Math.abs(tuned[depth - 1]!)).toBeLessThan(1e-5);
});

test("the last layer's map is the identity, so that the lens says there what the model does", async () => {
  const last = (await lens.maps.at(depth - 1).read()).map(Math.abs);
  expect(Math.max(...last)).toBeLessThan(1e-6);
  const { logits, x } = model.run(heldOut[0]!, { taps: { x: tap(`resid_post.${depth - 1}`, [-1]) } });
  expectClose(await lens.decode(model, depth - 1, x).read(), await logits!.read(), { atol: 1e-5 });
});

test("cells are those of the logit lens, read otherwise", async () => {
  const cells = await lens.read(model, heldOut[0]!, { at: [3, -1], k: 2, layers: [0, depth - 1] });
  const plain = await logitLens(model, heldOut[0]!, { at: [3, -1], k: 2, layers: [0, depth - 1] });
  expect(cells.map(({ layer, position }) => [layer, position])).toEqual(
    plain.map(({ layer, position }) => [layer, position]),
  );
  expect(cells.table().split("\n")).toHaveLength(3);
  expect(cells[3]!.tokens.map(({ id }) => id)).toEqual(plain[3]!.tokens.map(({ id }) => id));
  expect(cells[0]!.tokens).not.toEqual(plain[0]!.tokens);
});

test("it is saved and loaded as it is, and other files are refused", async () => {
  const bytes = await encodeTunedLens(lens);
  const loaded = await decodeTunedLens(bytes, device);
  expect(loaded.origin).toEqual(lens.origin);
  expect(await loaded.maps.read()).toEqual(await lens.maps.read());
  expect(await loaded.biases.read()).toEqual(await lens.biases.read());
  const other = await encodeTaskVectors(extractTaskVectors(model, heldOut));
  await expect(decodeTunedLens(other, device, "x")).rejects.toThrow(/x: not a file of a tuned lens/);
});

test("the fit is that of the normal equations: an affine map is found, and a strong ridge leaves the mean", () => {
  const [n, size] = [40, 5];
  const [map, bias] = [randomArray(size * size, 1), randomArray(size, 2)];
  const x = randomArray(n * size, 3).map((value, i) => value * 10 ** (i % size) + 1000); // scales and means apart
  const y = Float32Array.from(x, (_, i) => {
    const [row, to] = [Math.floor(i / size), i % size];
    const terms = Array.from(bias, (_, j) => (map[to * size + j]! * (x[row * size + j]! - 1000)) / 10 ** j);
    return terms.reduce((a, b) => a + b, bias[to]!);
  });
  const moments = new Moments(size);
  moments.add(x.subarray(0, 15 * size), y.subarray(0, 15 * size)); // in parts
  moments.add(x.subarray(15 * size), y.subarray(15 * size));
  const exact = moments.fit(0)!;
  expectClose(
    exact.map.map((value, i) => value * 10 ** (i % size)),
    map,
    { atol: 1e-3 },
  );
  const strong = moments.fit(1e9)!;
  expect(Math.max(...strong.map.map(Math.abs))).toBeLessThan(1e-6);
  const mean = Array.from(bias, (_, to) =>
    y.filter((_, i) => i % size === to).reduce((a, b) => a + b / n, 0),
  );
  expectClose(strong.bias, mean, { atol: 1e-3 });
});

test("what the positions do not determine is refused by name", async () => {
  const few = prompts.slice(0, 3);
  const count = few.reduce((sum, { length }) => sum + length, 0);
  expect(count).toBeLessThan(width + 1);
  await expect(fitTunedLens(model, few, { ridge: 0 })).rejects.toThrow(
    new RegExp(`expected ${width + 1} positions or more, one above the width, found ${count}`),
  );
  const same = Array(10).fill(prompts[0]!);
  await expect(fitTunedLens(model, same, { ridge: 0 })).rejects.toThrow(
    /do not determine the map of layer 0/,
  );
  expect((await fitTunedLens(model, few)).origin.positions).toBe(count);
  await expect(fitTunedLens(model, [])).rejects.toThrow(/at least one prompt/);
  await expect(fitTunedLens(model, few, { ridge: -1 })).rejects.toThrow(
    /expected ridge to be a number from 0/,
  );
  await expect(fitTunedLens(model, few, { layers: [3] })).rejects.toThrow(/layers from 0 to 2/);
  const part = await fitTunedLens(model, few, { layers: [1] });
  await expect(part.read(model, heldOut[0]!, { layers: [0] })).rejects.toThrow(
    /no tuned lens of layer 0; there are those of 1/,
  );
  expect(() => part.translate(1, device.zeros([2, 5]))).toThrow(
    /residual stream \[rows, 48\], found \[2, 5\]/,
  );
});
