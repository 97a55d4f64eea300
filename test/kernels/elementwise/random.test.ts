import { describe, expect, it } from "vitest";
import { XpatchError } from "../../../src/errors.ts";
import { randomNormal, randomUniform } from "../../../src/kernels/elementwise/random.ts";
import { expectClose } from "../../helpers/compare.ts";
import { testDevice } from "../../helpers/device.ts";

const MASK = 0xffffffffn;

/** Philox4x32-10 in big integers, from the paper. */
function philox(counter: bigint, seed: bigint): bigint[] {
  let c = [counter, 0n, 0n, 0n];
  let key = [seed & MASK, seed >> 32n];
  for (let round = 0; round < 10; round++) {
    const p = 0xd2511f53n * c[0]!;
    const q = 0xcd9e8d57n * c[2]!;
    c = [(q >> 32n) ^ c[1]! ^ key[0]!, q & MASK, (p >> 32n) ^ c[3]! ^ key[1]!, p & MASK];
    key = [(key[0]! + 0x9e3779b9n) & MASK, (key[1]! + 0xbb67ae85n) & MASK];
  }
  return c;
}

function words(count: number, seed: bigint): number[] {
  return Array.from({ length: count }, (_, i) => Number(philox(BigInt(i >> 2), seed)[i & 3]!));
}

function moments(values: ArrayLike<number>): {
  mean: number;
  variance: number;
  kurtosis: number;
  lag: number;
} {
  const list = Array.from(values);
  const average = (f: (v: number, i: number) => number) =>
    list.reduce((t, v, i) => t + f(v, i), 0) / list.length;
  const mean = average((v) => v);
  const variance = average((v) => (v - mean) ** 2);
  const kurtosis = average((v) => (v - mean) ** 4) / variance ** 2;
  const lag = average((v, i) => (v - mean) * ((list[i + 1] ?? mean) - mean)) / variance;
  return { mean, variance, kurtosis, lag };
}

describe("randomUniform", () => {
  it("is Philox: the published test vector and a reference in big integers", async () => {
    // Random123's known answer for counter 0 and key 0.
    expect(philox(0n, 0n)).toEqual([0x6627e8d5n, 0xe169c58dn, 0xbc57ac4cn, 0x9b00dbd8n]);
    const device = await testDevice();
    for (const seed of [0, 1, 2 ** 32 + 5, Number.MAX_SAFE_INTEGER]) {
      const found = await randomUniform(device, [103], { seed }).read();
      expect(found).toEqual(Float32Array.from(words(103, BigInt(seed)), (w) => (w >>> 8) * 2 ** -24));
    }
  });

  it("spreads evenly, neighbours uncorrelated", async () => {
    const device = await testDevice();
    const found = await randomUniform(device, [200, 1000], { seed: 7, low: -2, high: 4 }).read();
    expect(found.every((v) => v >= -2 && v <= 4)).toBe(true);
    const { mean, variance, lag } = moments(found);
    expect(mean).toBeCloseTo(1, 1);
    expect(variance).toBeCloseTo(3, 1);
    expect(Math.abs(lag)).toBeLessThan(0.01);
  });

  it("does not depend on the shape, only on the position", async () => {
    const device = await testDevice();
    const [long, short] = await device.read([
      randomUniform(device, [4_200_003], { seed: 3 }),
      randomUniform(device, [7, 3], { seed: 3 }),
    ]);
    expect(long.subarray(0, 21)).toEqual(short);
    const last = philox(BigInt(4_200_000 / 4), 3n)[2];
    expect(long[4_200_002]).toBe((Number(last) >>> 8) * 2 ** -24);
    device.trim();
  });

  it("refuses seeds that are not whole numbers", async () => {
    const device = await testDevice();
    for (const seed of [-1, 0.5, Number.NaN]) {
      expect(() => randomUniform(device, [1], { seed })).toThrow(XpatchError);
    }
    expect(randomUniform(device, [0, 3], { seed: 1 }).shape).toEqual([0, 3]);
  });
});

describe("randomNormal", () => {
  it("is Box and Muller's transform of the same words", async () => {
    const device = await testDevice();
    const w = words(4000, 42n);
    const expected = w.map((_, i) => {
      const [a, b] = [w[i & ~1]!, w[i | 1]!];
      const radius = Math.sqrt(-2 * Math.log(((a >>> 8) + 1) * 2 ** -24));
      const turn = ((b >>> 30) + ((b >>> 6) & 0xffffff) * 2 ** -24 - 0.5) / 4;
      return radius * (i & 1 ? Math.sin(2 * Math.PI * turn) : Math.cos(2 * Math.PI * turn));
    });
    const found = await randomNormal(device, [4000], { seed: 42 }).read();
    expectClose(found, expected, { atol: 5e-6, rtol: 1e-6 });
  });

  it("has the moments of a normal distribution", async () => {
    const device = await testDevice();
    const found = await randomNormal(device, [300_000], { seed: 9, mean: 5, standardDeviation: 2 }).read();
    const { mean, variance, kurtosis, lag } = moments(found);
    expect(Math.abs(mean - 5)).toBeLessThan(0.02);
    expect(Math.abs(variance - 4)).toBeLessThan(0.06);
    expect(Math.abs(kurtosis - 3)).toBeLessThan(0.06);
    expect(Math.abs(lag)).toBeLessThan(0.01);
  });
});
