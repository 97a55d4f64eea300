import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { DTypeError, ShapeError } from "../../../src/errors.ts";
import { concat, stack } from "../../../src/kernels/movement/concat.ts";
import { gatherRows, takeAlongAxis } from "../../../src/kernels/movement/gather.ts";
import { sizeOf } from "../../../src/tensor/shape.ts";
import { randomArray } from "../../helpers/compare.ts";
import { testDevice } from "../../helpers/device.ts";
import { viewOf } from "../../helpers/views.ts";

describe("gatherRows", () => {
  it.each([{}, { maxBindingBytes: 4096 }])(
    "looks rows up in tables of any dtype and layout (%o)",
    async (options) => {
      const device = await testDevice(options);
      await fc.assert(
        fc.asyncProperty(
          fc.integer({ min: 1, max: 90 }),
          fc.constantFrom(1, 3, 4, 8, 31, 64),
          fc.array(fc.nat(10_000), { maxLength: 20 }),
          fc.constantFrom("f32", "f16", "bf16"),
          fc.constantFrom("u32", "i32"),
          fc.nat(1000),
          async (vocabulary, width, picks, dtype, idType, seed) => {
            const table = viewOf(device, [vocabulary, width], dtype, seed);
            const ids = picks.map((p) => p % vocabulary);
            const out = gatherRows(table, device.tensor(ids, { dtype: idType }));
            expect([out.shape, out.dtype]).toEqual([[ids.length, width], "f32"]);
            const [values, found] = await device.read([table, out]);
            expect([...found]).toEqual(
              ids.flatMap((id) => [...values.subarray(id * width, (id + 1) * width)]),
            );
          },
        ),
        { numRuns: 50 },
      );
    },
  );

  it("gives NaN for ids out of range, and nothing else changes", async () => {
    const device = await testDevice();
    for (const width of [3, 4]) {
      const table = device.tensor(randomArray(5 * width, 1), { shape: [5, width] });
      const found = await gatherRows(table, device.tensor(Int32Array.of(5, 4, -1))).read();
      const [values] = await device.read([table.rows(4)]);
      const nan = new Float32Array(width).fill(Number.NaN);
      expect([...found]).toEqual([...nan, ...values, ...nan]);
    }
  });

  it("fetches more elements than one dispatch dimension holds", async () => {
    const device = await testDevice();
    const n = 65_535 * 64 + 3;
    const table = device.tensor([0, 1, 2, 3], { shape: [4, 1] });
    const found = await gatherRows(
      table,
      device.tensor(Uint32Array.from({ length: n }, (_, i) => i % 4)),
    ).read();
    expect(found.findIndex((v, i) => v !== i % 4)).toBe(-1);
    device.trim();
  });

  it("refuses other shapes and dtypes", async () => {
    const device = await testDevice();
    const table = device.zeros([3, 4]);
    const ids = device.zeros([2], "u32");
    expect(() => gatherRows(device.zeros([3]), ids)).toThrow(ShapeError);
    expect(() => gatherRows(table, device.zeros([1, 2], "u32"))).toThrow(/\[3, 4\] and \[1, 2\]/);
    expect(() => gatherRows(table, device.zeros([2]))).toThrow(DTypeError);
    expect(() => gatherRows(device.zeros([3, 4], "i32"), ids)).toThrow(DTypeError);
  });
});

describe("takeAlongAxis", () => {
  it("picks along any axis", async () => {
    const device = await testDevice();
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 1, maxLength: 4 }),
        fc.nat(3),
        fc.integer({ min: 1, max: 6 }),
        fc.nat(1000),
        async (shape, somewhere, picks, seed) => {
          const axis = somewhere % shape.length;
          const x = viewOf(device, shape, "bf16", seed);
          const idShape = shape.with(axis, picks);
          const ids = Uint32Array.from(
            randomArray(sizeOf(idShape), seed, 50),
            (v) => Math.abs(v) % shape[axis]!,
          );
          const out = takeAlongAxis(x, device.tensor(ids, { shape: idShape }), axis);
          const [values, found] = await device.read([x, out]);
          const inner = sizeOf(shape.slice(axis + 1));
          const expected = Array.from(ids, (id, i) => {
            const outer = Math.floor(i / (inner * picks));
            return values[(outer * shape[axis]! + id) * inner + (i % inner)]!;
          });
          expect(out.shape).toEqual(idShape);
          expect([...found]).toEqual(expected);
        },
      ),
      { numRuns: 40 },
    );
  });

  it("refuses ids of another shape or dtype", async () => {
    const device = await testDevice();
    const x = device.zeros([2, 3]);
    expect(() => takeAlongAxis(x, device.zeros([3, 1], "u32"))).toThrow(ShapeError);
    expect(() => takeAlongAxis(x, device.zeros([2, 1]))).toThrow(DTypeError);
    const outside = takeAlongAxis(x, device.tensor(Uint32Array.of(0, 3), { shape: [2, 1] }));
    expect([...(await outside.read())]).toEqual([0, Number.NaN]);
  });
});

describe("concat", () => {
  it("joins views of any dtype along any axis", async () => {
    const device = await testDevice();
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 1, maxLength: 4 }),
        fc.nat(3),
        fc.array(fc.nat(5), { minLength: 1, maxLength: 4 }),
        fc.constantFrom("f32", "f16", "bf16", "i32", "u32"),
        fc.nat(1000),
        async (shape, somewhere, lengths, dtype, seed) => {
          const axis = somewhere % shape.length;
          const parts = lengths.map((n, i) => viewOf(device, shape.with(axis, n), dtype, seed + i, 100));
          const out = concat(parts, axis - shape.length);
          const [found, ...values] = await device.read([out, ...parts]);
          const outer = sizeOf(shape.slice(0, axis));
          const expected: number[] = [];
          for (let o = 0; o < outer; o++) {
            for (const part of values) {
              const run = part.length / outer;
              expected.push(...part.subarray(o * run, (o + 1) * run));
            }
          }
          expect([out.dtype, out.dim(axis)]).toEqual([dtype, lengths.reduce((a, b) => a + b)]);
          expect([...found]).toEqual(expected);
        },
      ),
      { numRuns: 80 },
    );
  });

  it("widens floats of several widths to f32", async () => {
    const device = await testDevice();
    const out = concat([device.tensor([1.5], { dtype: "f16" }), device.tensor([0.1])]);
    expect([out.dtype, ...(await out.read())]).toEqual(["f32", 1.5, Math.fround(0.1)]);
  });

  it("refuses sizes, dtypes and axes that do not fit", async () => {
    const device = await testDevice();
    const x = device.zeros([2, 3]);
    expect(() => concat([x, device.zeros([2, 4])])).toThrow(/axis 0, found \[2, 3\], \[2, 4\]/);
    expect(() => concat([x, device.zeros([3])])).toThrow(ShapeError);
    expect(() => concat([x, device.zeros([2, 3], "i32")])).toThrow(DTypeError);
    expect(() => concat([x], 2)).toThrow(ShapeError);
    expect(() => concat([])).toThrow(ShapeError);
  });

  it("stacks along a new axis", async () => {
    const device = await testDevice();
    const a = device.tensor([1, 2, 3]);
    const b = device.tensor([4, 5, 6]);
    const [first, last] = [stack([a, b]), stack([a, b], -1)];
    expect([first.shape, last.shape]).toEqual([
      [2, 3],
      [3, 2],
    ]);
    expect([...(await first.read())]).toEqual([1, 2, 3, 4, 5, 6]);
    expect([...(await last.read())]).toEqual([1, 4, 2, 5, 3, 6]);
  });
});
