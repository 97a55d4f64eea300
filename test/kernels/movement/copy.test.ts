import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { LifetimeError } from "../../../src/errors.ts";
import { collapse } from "../../../src/kernels/elementwise/strided.ts";
import { cast, contiguous, copy } from "../../../src/kernels/movement/copy.ts";
import { bf16Bits, bf16Value, type DType, f16Bits, f16Value } from "../../../src/tensor/dtype.ts";
import { randomArray } from "../../helpers/compare.ts";
import { testDevice } from "../../helpers/device.ts";

const DTYPES: readonly DType[] = ["f32", "f16", "bf16", "i32", "u32"];

/** Floats that conversions get wrong: ties, subnormal halves, the edges of every range, signed zeros, NaN. */
const EDGES = [
  0,
  -0,
  1,
  -1,
  2049,
  2051,
  4098.5,
  65504,
  65519.99,
  65520,
  -65520,
  1e38,
  -1e38,
  5.96e-8,
  2.98e-8,
  2.9e-8,
  1e-7,
  6.1e-5,
  6.097e-5,
  1 + 2 ** -11,
  1 + 3 * 2 ** -11,
  1 + 2 ** -8,
  1 + 3 * 2 ** -8,
  3.4028234e38,
  3.39e38,
  Number.POSITIVE_INFINITY,
  Number.NEGATIVE_INFINITY,
  Number.NaN,
  2147483520,
  2147483648,
  -2147483648,
  -3e9,
  4294967040,
  4294967296,
  5e9,
  -0.9,
  0.9,
  1.5,
  2.5,
  -2.5,
];

describe("cast", () => {
  it("rounds f32 to f16 and bf16 to the nearest, ties to even", async () => {
    const device = await testDevice();
    const values = Float32Array.from([...EDGES, ...randomArray(5000, 1, 100), ...randomArray(5000, 2, 1e-5)]);
    const x = device.tensor(values);
    const [f16, bf16] = await device.read([cast(x, "f16"), cast(x, "bf16")]);
    expect(f16).toEqual(values.map((v) => f16Value(f16Bits(v))));
    expect(bf16).toEqual(values.map((v) => bf16Value(bf16Bits(v))));
  });

  it("truncates to integers, clamps, and takes NaN to 0", async () => {
    const device = await testDevice();
    const values = Float32Array.from(EDGES);
    const x = device.tensor(values);
    const [i32, u32] = await device.read([cast(x, "i32"), cast(x, "u32")]);
    const whole = (v: number, low: number, high: number) =>
      Number.isNaN(v) ? 0 : Math.min(high, Math.max(low, Math.trunc(v)));
    expect(i32).toEqual(Int32Array.from(values, (v) => whole(v, -(2 ** 31), 2 ** 31 - 1)));
    expect(u32).toEqual(Uint32Array.from(values, (v) => whole(v, 0, 2 ** 32 - 1)));
  });

  it("widens f16, bf16 and integers to f32", async () => {
    const device = await testDevice();
    const halves = Float32Array.from([0, -0, 1.5, -65504, 2 ** -24, Number.POSITIVE_INFINITY]);
    expect(await cast(device.tensor(halves, { dtype: "f16" }), "f32").read()).toEqual(halves);
    const brains = Float32Array.from([0, -0, 1.5, 2 ** 100, -(2 ** -100), Number.NEGATIVE_INFINITY]);
    expect(await cast(device.tensor(brains, { dtype: "bf16" }), "f32").read()).toEqual(brains);
    expect(await cast(device.tensor(Int32Array.of(-7, 1 << 24)), "f32").read()).toEqual(
      Float32Array.of(-7, 1 << 24),
    );
    expect(await cast(device.tensor(Uint32Array.of(2 ** 31)), "f32").read()).toEqual(
      Float32Array.of(2 ** 31),
    );
    expect(await cast(device.tensor(Int32Array.of(-1)), "u32").read()).toEqual(Uint32Array.of(2 ** 32 - 1));
    expect(await cast(device.tensor(Int32Array.of(-7, 3, 2049)), "f16").read()).toEqual(
      Float32Array.of(-7, 3, 2048),
    );
  });
});

describe("copy", () => {
  it("keeps every bit of 32-bit elements, NaN payloads and subnormals too", async () => {
    const device = await testDevice();
    const bits = Uint32Array.of(0x7fc12345, 0xffc00001, 0x7f800001, 1, 0x80000001, 0x007fffff, 0x3f800000);
    const x = device.tensor(new Float32Array(7));
    device.write(x, new Uint8Array(bits.buffer));
    const copied = await copy(x).read();
    expect(new Uint32Array(copied.buffer)).toEqual(bits);
  });

  it("keeps every bit of 16-bit elements", async () => {
    const device = await testDevice();
    for (const dtype of ["f16", "bf16"] as const) {
      const bits = Uint16Array.of(0x7e01, 0xfc00, 1, 0x8001, 0x7fff, 0x3c00, 0x7f81, 0xffff, 42, 0);
      const x = device.empty([9], dtype);
      device.write(x, new Uint8Array(bits.buffer));
      const halves = device.empty([5], "u32"); // the copy's words, seen as integers
      device.recorder.copy(copy(x).storage.buffer, 0, halves.storage.buffer, 0, 20);
      expect(new Uint16Array((await halves.read()).buffer)).toEqual(bits);
    }
  });

  it("gathers any strided view in row-major order", async () => {
    for (const options of [{}, { kernels: "workgroup" }, { maxBindingBytes: 16_384 }] as const) {
      const device = await testDevice(options);
      await fc.assert(
        fc.asyncProperty(
          fc.constantFrom(...DTYPES),
          fc.array(fc.integer({ min: 1, max: 7 }), { minLength: 1, maxLength: 5 }),
          fc.infiniteStream(fc.nat(1000)),
          async (dtype, shape, stream) => {
            const next = () => stream.next().value as number;
            const base = device.tensor(
              Array.from({ length: shape.reduce((a, b) => a * b) }, (_, i) => i % 251),
              { shape, dtype },
            );
            let view = base.permute([...shape.keys()].sort(() => (next() % 2) - 0.5));
            const axis = next() % shape.length;
            const start = next() % view.dim(axis);
            view = view.slice(axis, start, start + 1 + (next() % (view.dim(axis) - start)));
            const [expected, found] = await device.read([view, copy(view)]);
            expect(found).toEqual(expected);
          },
        ),
        { numRuns: 30 },
      );
    }
  });

  it("crosses the limit of one dispatch dimension", async () => {
    const device = await testDevice();
    const n = 65_535 * 64 + 77;
    const x = device.tensor(
      Uint32Array.from({ length: 2 * n }, (_, i) => i),
      { shape: [n, 2] },
    );
    const found = await copy(x.slice(1, 1).transpose()).read();
    expect(found.every((v, i) => v === 2 * i + 1)).toBe(true);
    device.trim();
  });
});

describe("contiguous", () => {
  it("returns the same tensor where nothing is to be done", async () => {
    const device = await testDevice();
    const x = device.zeros([3, 4]);
    expect(contiguous(x)).toBe(x);
    expect(contiguous(x.rows(1, 3)).shape).toEqual([2, 4]);
    const y = contiguous(x.transpose());
    expect([y.shape, y.contiguous]).toEqual([[4, 3], true]);
  });

  it("refuses a disposed tensor", async () => {
    const x = (await testDevice()).zeros([2, 2]);
    const view = x.transpose();
    view.dispose();
    expect(() => contiguous(view)).toThrow(LifetimeError);
  });
});

describe("collapse", () => {
  it("joins dimensions that all operands walk with one step, and only those", () => {
    expect(collapse([2, 3, 4], [[12, 4, 1]])).toEqual({ shape: [24], strides: [[1]] });
    const two = [
      [12, 4, 1],
      [0, 4, 1],
    ];
    expect(collapse([2, 3, 4], two)).toEqual({
      shape: [2, 12],
      strides: [
        [12, 1],
        [0, 1],
      ],
    });
    expect(collapse([3, 1, 2], [[1, 7, 3]])).toEqual({ shape: [3, 2], strides: [[1, 3]] });
    expect(collapse([1, 1], [[5, 5]])).toEqual({ shape: [1], strides: [[1]] });
    expect(collapse([5, 2], [[0, 0]])).toEqual({ shape: [10], strides: [[0]] });
  });
});
