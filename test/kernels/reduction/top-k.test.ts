import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ShapeError } from "../../../src/errors.ts";
import { MAX_TOP_K, topK } from "../../../src/kernels/reduction/top-k.ts";
import { randomArray } from "../../helpers/compare.ts";
import { testDevice } from "../../helpers/device.ts";
import { viewOf } from "../../helpers/views.ts";

function reference(row: readonly number[], k: number): number[] {
  const rank = (v: number) => (Number.isNaN(v) ? Number.POSITIVE_INFINITY : v);
  const before = (i: number, j: number) =>
    Number(Number.isNaN(row[j])) - Number(Number.isNaN(row[i])) ||
    (rank(row[j]!) === rank(row[i]!) ? i - j : rank(row[j]!) - rank(row[i]!));
  return [...row.keys()].sort(before).slice(0, k);
}

/** Rows of a row-major array. */
function rowsOf(values: ArrayLike<number>, n: number): number[][] {
  const flat = Array.from(values);
  return Array.from({ length: flat.length / n }, (_, r) => flat.slice(r * n, (r + 1) * n));
}

describe.each([["register"], ["workgroup"]] as const)("topK (%s)", (kernels) => {
  async function check(values: Float32Array<ArrayBuffer>, n: number, k: number): Promise<void> {
    const device = await testDevice({ kernels });
    const x = device.tensor(values, { shape: [values.length / n, n] });
    const top = topK(x, k);
    const [found, indices] = await device.read([top.values, top.indices]);
    const expected = rowsOf(values, n).map((row) => reference(row, k));
    expect(rowsOf(indices, k)).toEqual(expected);
    const at = expected.flatMap((row, r) => row.map((i) => values[r * n + i]!));
    expect(Array.from(found)).toEqual(at);
  }

  it("sorts any row, with ties by index", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 600 }),
        fc.integer({ min: 1, max: 4 }),
        fc.integer({ min: 1, max: 64 }),
        fc.constantFrom(2, 30, 1e6),
        fc.nat(10_000),
        async (n, rows, k, distinct, seed) => {
          const values = randomArray(rows * n, seed).map((v) => Math.floor(v * distinct));
          await check(values, n, Math.min(n, k));
        },
      ),
      { numRuns: 40 },
    );
  });

  it.each([
    [49_152, 1, 100],
    [49_152, 2, 1],
    [256_000, 1, 50],
    [20_011, 3, MAX_TOP_K],
  ])("finds the top of a vocabulary of %i in %i rows, k = %i", async (n, rows, k) => {
    await check(randomArray(rows * n, k), n, k);
  });

  it("orders equal elements by index across chunks", async () => {
    await check(new Float32Array(40_000).fill(-3), 40_000, 70);
    await check(
      Float32Array.from({ length: 40_000 }, (_, i) => i % 3),
      40_000,
      70,
    );
  });

  it("puts NaN first, then infinity; zeros of either sign are equal", async () => {
    const special = [
      -0,
      0,
      1e-40,
      Number.NaN,
      Number.NEGATIVE_INFINITY,
      3,
      Number.POSITIVE_INFINITY,
      -1,
      Number.NaN,
    ];
    const device = await testDevice({ kernels });
    const { indices } = topK(device.tensor(special), 9);
    expect([...(await indices.read())].filter((i) => i !== 2)).toEqual([3, 8, 6, 5, 0, 1, 7, 4]);
  });

  it("takes other dtypes and layouts", async () => {
    const device = await testDevice({ kernels });
    const x = viewOf(device, [3, 2, 50], "f16", 11);
    const top = topK(x, 5);
    const [values, found] = await device.read([x, top.indices]);
    expect(top.values.shape).toEqual([3, 2, 5]);
    expect(rowsOf(found, 5)).toEqual(rowsOf(values, 50).map((row) => reference(row, 5)));
    const i32 = topK(device.tensor(Int32Array.of(-5, 3, -(2 ** 31), 9)), 4);
    expect(await i32.values.read()).toEqual(Int32Array.of(9, 3, -5, -(2 ** 31)));
    const u32 = topK(device.tensor(Uint32Array.of(0, 2 ** 32 - 1, 5)), 3);
    expect(await u32.values.read()).toEqual(Uint32Array.of(2 ** 32 - 1, 5, 0));
  });

  it("serves more rows than one dispatch dimension holds", async () => {
    const device = await testDevice({ kernels });
    const rows = 65_535 * 8 + 9;
    const x = device.tensor(
      Uint32Array.from({ length: rows * 3 }, (_, i) => (i % 3 === Math.floor(i / 3) % 3 ? 9 : 1)),
      { shape: [rows, 3] },
    );
    const found = await topK(x, 1).indices.read();
    expect(found.findIndex((v, row) => v !== row % 3)).toBe(-1);
    device.trim();
  });
});

describe("topK", () => {
  it("refuses k outside 0..min(n, 1024) and scalars", async () => {
    const device = await testDevice();
    const x = device.zeros([2, 5]);
    for (const k of [-1, 6, 1.5]) expect(() => topK(x, k)).toThrow(ShapeError);
    expect(() => topK(device.zeros([3000]), 1025)).toThrow(
      "topK: expected k from 0 to 1024 for shape [3000], found 1025",
    );
    expect(() => topK(device.tensor(1), 1)).toThrow(ShapeError);
    expect(topK(x, 0).values.shape).toEqual([2, 0]);
    expect(topK(device.zeros([0, 5]), 2).indices.shape).toEqual([0, 2]);
  });
});
