import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { DTypeError, ShapeError } from "../../../src/errors.ts";
import {
  addRows,
  copyRowsInto,
  interpolateRows,
  keepDirectionRows,
  projectOutRows,
  type Range,
  type RowSelection,
  scaleRows,
  setRows,
  zeroRows,
} from "../../../src/kernels/movement/row-edits.ts";
import type { Device } from "../../../src/tensor/device.ts";
import type { Tensor } from "../../../src/tensor/tensor.ts";
import { expectClose, randomArray } from "../../helpers/compare.ts";
import { testDevice } from "../../helpers/device.ts";
import { viewOf } from "../../helpers/views.ts";

interface Case {
  apply(x: Tensor, at: RowSelection, value: Tensor, options: { features?: Range }): Tensor;
  /** What becomes of the selected part of one row, in f64. */
  edit(row: number[], value: number[]): number[];
}

const dot = (a: readonly number[], b: readonly number[]) => a.reduce((sum, v, i) => sum + v * b[i]!, 0);
const along = (row: number[], d: number[]) => d.map((v) => (v * dot(row, d)) / (dot(d, d) || 1));

const CASES: Record<string, Case> = {
  setRows: { apply: setRows, edit: (_, value) => value },
  addRows: {
    apply: (x, at, value, options) => addRows(x, at, value, { ...options, factor: -1.5 }),
    edit: (row, value) => row.map((v, i) => v - 1.5 * value[i]!),
  },
  scaleRows: {
    apply: (x, at, _, options) => scaleRows(x, at, 0.25, options),
    edit: (row) => row.map((v) => v * 0.25),
  },
  zeroRows: { apply: (x, at, _, options) => zeroRows(x, at, options), edit: (row) => row.map(() => 0) },
  interpolateRows: {
    apply: (x, at, value, options) => interpolateRows(x, at, value, 0.3, options),
    edit: (row, value) => row.map((v, i) => 0.7 * v + 0.3 * value[i]!),
  },
  projectOutRows: {
    apply: projectOutRows,
    edit: (row, d) => row.map((v, i) => v - along(row, d)[i]!),
  },
  keepDirectionRows: { apply: keepDirectionRows, edit: along },
};

/** The same rows as a range, as indices, and as indices on the GPU. */
function selection(
  device: Device,
  kind: "range" | "indices" | "tensor",
  rows: readonly number[],
): RowSelection {
  if (kind === "range") return { start: rows[0] ?? 0, end: (rows[0] ?? 0) + rows.length };
  return kind === "indices" ? rows : device.tensor(Uint32Array.from(rows));
}

describe.each([["register"], ["workgroup"]] as const)("row edits (%s)", (kernels) => {
  it.each(Object.keys(CASES))("%s agrees with f64 and leaves the rest alone", async (name) => {
    const device = await testDevice({ kernels });
    const { apply, edit } = CASES[name]!;
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 9 }),
        fc.constantFrom(1, 3, 8, 65, 130),
        fc.constantFrom("range", "indices", "tensor"),
        fc.boolean(),
        fc.boolean(),
        fc.constantFrom("f32", "bf16"),
        fc.nat(10_000),
        async (count, width, kind, onePerRow, part, dtype, seed) => {
          const x = viewOf(device, [count, width], dtype, seed);
          const order = [...Array(count).keys()];
          if (kind !== "range") order.sort((a, b) => ((a * 7 + seed) % 11) - ((b * 7 + seed) % 11));
          const rows = order.slice(seed % (count + 1));
          const features = part
            ? { start: Math.floor(width / 3), end: width - (seed % 2) }
            : { start: 0, end: width };
          const wide = Math.max(0, features.end - features.start);
          const value = viewOf(device, onePerRow ? [rows.length, wide] : [wide], "f16", seed + 1);
          const out = apply(x, selection(device, kind, rows), value, part ? { features } : {});
          const [before, values, found] = await device.read([x, value, out]);
          const expected = [...before];
          rows.forEach((row, slot) => {
            const first = row * width + features.start;
            const own = onePerRow ? slot * wide : 0;
            const edited = edit(
              [...before.subarray(first, first + wide)],
              [...values.subarray(own, own + wide)],
            );
            expected.splice(first, wide, ...edited);
          });
          expect([out.shape, out.dtype]).toEqual([[count, width], "f32"]);
          expectClose(found, expected, { atol: 2e-5, rtol: 1e-5, label: name });
          const [after] = await device.read([x]);
          expect(after).toEqual(before);
        },
      ),
      { numRuns: 25 },
    );
  });

  it("project along zero: nothing to take out, nothing to keep", async () => {
    const device = await testDevice({ kernels });
    const x = device.tensor([1, 2, 3, 4], { shape: [2, 2] });
    const zero = device.zeros([2]);
    const [out, kept] = await device.read([
      projectOutRows(x, [0, 1], zero),
      keepDirectionRows(x, { start: 0, end: 1 }, zero),
    ]);
    expect([...out]).toEqual([1, 2, 3, 4]);
    expect([...kept]).toEqual([0, 0, 3, 4]);
  });

  it("edit more rows than one dispatch dimension holds", async () => {
    const device = await testDevice({ kernels });
    const rows = 65_535 + 70;
    const x = device.tensor(
      Float32Array.from({ length: rows * 2 }, (_, i) => i % 7),
      { shape: [rows, 2] },
    );
    const found = await projectOutRows(x, { start: 0, end: rows }, device.tensor([0, 2])).read();
    expect(found.findIndex((v, i) => v !== (i % 2 ? 0 : i % 7))).toBe(-1);
    device.trim();
  });
});

describe("row edits", () => {
  it("set and zero wipe out NaN; interpolation is exact at both ends", async () => {
    const device = await testDevice();
    const x = device.tensor([Number.NaN, Number.POSITIVE_INFINITY, 0.1, 0.7], { shape: [2, 2] });
    const value = device.tensor([0.3, 0.9]);
    const [zeroed, put, start, end] = await device.read([
      zeroRows(x, [0]),
      setRows(x, [0], value),
      interpolateRows(x, [1], value, 0),
      interpolateRows(x, [1], value, 1),
    ]);
    expect([...zeroed.subarray(0, 2)]).toEqual([0, 0]);
    expect(put.subarray(0, 2)).toEqual(Float32Array.of(0.3, 0.9));
    expect(start.subarray(2)).toEqual(Float32Array.of(0.1, 0.7));
    expect(end.subarray(2)).toEqual(Float32Array.of(0.3, 0.9));
  });

  it("pass over GPU indices out of range", async () => {
    const device = await testDevice();
    const x = device.tensor([1, 2, 3], { shape: [3, 1] });
    const out = projectOutRows(x, device.tensor(Int32Array.of(-1, 1, 3)), device.tensor([1]));
    expect([...(await out.read())]).toEqual([1, 0, 3]);
  });

  it("refuse rows, features and values that do not fit", async () => {
    const device = await testDevice();
    const x = device.zeros([4, 6]);
    const v = device.zeros([6]);
    expect(() => setRows(x, [4], v)).toThrow(/row 4 does not lie in 4 rows/);
    expect(() => setRows(x, [-1], v)).toThrow(ShapeError);
    expect(() => setRows(x, { start: 2, end: 5 }, v)).toThrow(/rows 2..5 do not lie in 0..4/);
    expect(() => setRows(x, [1, 2, 1], v)).toThrow(/named twice/);
    expect(() => setRows(x, [1], device.zeros([5]))).toThrow(/\[6\] or \[1, 6\] .* found \[5\]/);
    expect(() => setRows(x, [1, 3], device.zeros([3, 6]))).toThrow(ShapeError);
    expect(() => setRows(x, [1], v, { features: { start: 0, end: 3 } })).toThrow(ShapeError);
    expect(() => setRows(x, [1], v, { features: { start: 2, end: 8 } })).toThrow(/features 2..8/);
    expect(() => setRows(device.zeros([6]), [0], v)).toThrow(ShapeError);
    expect(() => setRows(x, device.zeros([2]), v)).toThrow(DTypeError);
    expect(() => scaleRows(device.zeros([2, 2], "i32"), [0], 2)).toThrow(DTypeError);
  });
});

describe("copyRowsInto", () => {
  it("appends in place, after everything recorded before has read the old rows", async () => {
    const device = await testDevice();
    const cache = device.zeros([5, 3]);
    const first = device.tensor(randomArray(6, 1), { shape: [2, 3] });
    copyRowsInto(cache, 1, first);
    const earlier = scaleRows(cache, [], 1);
    copyRowsInto(cache, 2, device.tensor([7, 8, 9], { shape: [3, 1] }).transpose());
    const [a, now, then] = await device.read([first, cache, earlier]);
    expect([...then]).toEqual([0, 0, 0, ...a, 0, 0, 0, 0, 0, 0]);
    expect([...now]).toEqual([0, 0, 0, ...a.subarray(0, 3), 7, 8, 9, 0, 0, 0, 0, 0, 0]);
  });

  it("widens 16-bit sources and writes through windows", async () => {
    const device = await testDevice({ maxBindingBytes: 4096 });
    const cache = device.zeros([100, 30]);
    const source = device.tensor(randomArray(60 * 30, 3), { shape: [60, 30], dtype: "bf16" });
    copyRowsInto(cache, 37, source);
    const [rows, found] = await device.read([source, cache]);
    expect(found.subarray(37 * 30, 97 * 30)).toEqual(rows);
    expect(found.subarray(0, 37 * 30).every((v) => v === 0)).toBe(true);
  });

  it("refuses what does not fit", async () => {
    const device = await testDevice();
    const cache = device.zeros([4, 3]);
    expect(() => copyRowsInto(cache, 3, device.zeros([2, 3]))).toThrow(/rows 3..5 do not lie in \[4, 3\]/);
    expect(() => copyRowsInto(cache, 0, device.zeros([1, 2]))).toThrow(ShapeError);
    expect(() => copyRowsInto(cache, 0, cache.rows(1, 2))).toThrow(/share a buffer/);
    expect(() => copyRowsInto(device.zeros([4, 3], "f16"), 0, device.zeros([1, 3]))).toThrow(DTypeError);
    expect(() => copyRowsInto(cache, 0, device.zeros([1, 3], "i32"))).toThrow(DTypeError);
  });
});
