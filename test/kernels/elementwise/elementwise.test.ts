import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { DTypeError, ShapeError } from "../../../src/errors.ts";
import {
  equal,
  greater,
  greaterEqual,
  less,
  lessEqual,
  notEqual,
  select,
} from "../../../src/kernels/elementwise/compare.ts";
import {
  abs,
  add,
  ceil,
  cos,
  div,
  exp,
  floor,
  log,
  maximum,
  minimum,
  mul,
  neg,
  pow,
  round,
  rsqrt,
  sigmoid,
  sin,
  sqrt,
  square,
  sub,
  tanh,
} from "../../../src/kernels/elementwise/elementwise.ts";
import type { DType } from "../../../src/tensor/dtype.ts";
import { broadcastShapes, type Shape, sizeOf } from "../../../src/tensor/shape.ts";
import { expectClose, randomArray } from "../../helpers/compare.ts";
import { testDevice } from "../../helpers/device.ts";
import { viewOf } from "../../helpers/views.ts";

const BINARY = { add, sub, mul, div, maximum, minimum, pow };
const UNARY = { neg, abs, square, exp, log, sqrt, rsqrt, tanh, sigmoid, sin, cos, floor, ceil, round };
const COMPARE = { equal, notEqual, less, lessEqual, greater, greaterEqual };

type BinaryName = keyof typeof BINARY;
type UnaryName = keyof typeof UNARY;
type CompareName = keyof typeof COMPARE;

const BINARY_F64: Record<BinaryName, (a: number, b: number) => number> = {
  add: (a, b) => a + b,
  sub: (a, b) => a - b,
  mul: (a, b) => a * b,
  div: (a, b) => a / b,
  maximum: Math.max,
  minimum: Math.min,
  pow: (a, b) => (a === 1 || (a === -1 && Math.abs(b) === Number.POSITIVE_INFINITY) ? 1 : a ** b), // as in C
};

const UNARY_F64: Record<UnaryName, (x: number) => number> = {
  neg: (x) => -x,
  abs: Math.abs,
  square: (x) => x * x,
  exp: Math.exp,
  log: Math.log,
  sqrt: Math.sqrt,
  rsqrt: (x) => 1 / Math.sqrt(x),
  tanh: Math.tanh,
  sigmoid: (x) => 1 / (1 + Math.exp(-x)),
  sin: Math.sin,
  cos: Math.cos,
  floor: Math.floor,
  ceil: Math.ceil,
  round: (x) => (Math.abs(x % 1) === 0.5 ? 2 * Math.round(x / 2) : Math.round(x)),
};

const COMPARE_F64: Record<CompareName, (a: number, b: number) => boolean> = {
  equal: (a, b) => a === b,
  notEqual: (a, b) => a !== b,
  less: (a, b) => a < b,
  lessEqual: (a, b) => a <= b,
  greater: (a, b) => a > b,
  greaterEqual: (a, b) => a >= b,
};

/** f64 reference: `f` over operands read as row-major arrays, broadcast to one shape. */
function broadcastMap(
  f: (...values: number[]) => number,
  operands: readonly { values: ArrayLike<number>; shape: Shape }[],
): number[] {
  const shape = broadcastShapes("test", ...operands.map((o) => o.shape));
  return Array.from({ length: sizeOf(shape) }, (_, flat) => {
    const index: number[] = [];
    let rest = flat;
    for (const n of [...shape].reverse()) {
      index.unshift(rest % n);
      rest = Math.floor(rest / n);
    }
    return f(
      ...operands.map(({ values, shape: own }) => {
        const at = own.reduce(
          (sum, n, axis) => sum * n + (n === 1 ? 0 : index[axis + shape.length - own.length]!),
          0,
        );
        return values[at]!;
      }),
    );
  });
}

const FLOATS: readonly DType[] = ["f32", "f16", "bf16"];

const shapeArbitrary = fc.array(fc.constantFrom(1, 2, 3, 4, 5, 8, 12), { maxLength: 4 });
/** Each operand keeps a suffix of the shape and some of its dimensions collapse to 1. */
const suffix = fc.record({ drop: fc.nat(3), ones: fc.array(fc.boolean(), { minLength: 6, maxLength: 6 }) });

function narrowed(shape: Shape, { drop, ones }: { drop: number; ones: boolean[] }): number[] {
  return shape.slice(Math.min(drop, shape.length)).map((n, i) => (ones[i] ? 1 : n));
}

describe("broadcasting", () => {
  it("broadcast over views of any layout and float dtype as NumPy does", async () => {
    const device = await testDevice();
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom<BinaryName>("add", "sub", "mul", "maximum", "minimum"),
        shapeArbitrary,
        suffix,
        suffix,
        fc.constantFrom(...FLOATS),
        fc.constantFrom(...FLOATS),
        fc.nat(10_000),
        async (name, shape, cutA, cutB, dtypeA, dtypeB, seed) => {
          const a = viewOf(device, narrowed(shape, cutA), dtypeA, seed);
          const b = viewOf(device, narrowed(shape, cutB), dtypeB, seed + 1);
          const out = BINARY[name](a, b);
          const [va, vb, found] = await device.read([a, b, out]);
          const expected = broadcastMap(BINARY_F64[name], [
            { values: va, shape: a.shape },
            { values: vb, shape: b.shape },
          ]);
          expect(out.shape).toEqual(broadcastShapes(name, a.shape, b.shape));
          expectClose(found, Float32Array.from(expected), { atol: 1e-6, rtol: 1e-6, label: name });
        },
      ),
      { numRuns: 60 },
    );
  });
});

describe("binary operations", () => {
  it("read views whose rows do not start at multiples of four", async () => {
    const device = await testDevice();
    const values = randomArray(6 * 13, 2);
    const x = device.tensor(values, { shape: [6, 13] });
    for (const [start, end] of [
      [0, 4],
      [0, 8],
      [1, 13],
      [4, 12],
    ] as const) {
      const view = x.slice(1, start, end);
      const [expected, found] = await device.read([view, add(view, view)]);
      expect(found).toEqual(expected.map((v) => v + v));
    }
  });

  it("take numbers on either side", async () => {
    const device = await testDevice();
    const x = device.tensor([1, -2, 4, 0.5, 8]);
    const i = device.tensor(Int32Array.of(7, -7));
    const [a, b, c, d, e] = await device.read([sub(1, x), div(x, 4), pow(2, x), mul(i, -3), div(i, 2)]);
    expect([...a]).toEqual([0, 3, -3, 0.5, -7]);
    expectClose(b, [0.25, -0.5, 1, 0.125, 2]);
    expectClose(c, [2, 0.25, 16, Math.SQRT2, 256]);
    expect([...d]).toEqual([-21, 21]);
    expect([...e]).toEqual([3, -3]);
  });

  it("divides and raises to powers to 1e-5, whatever the sign", async () => {
    const device = await testDevice();
    const bases = Float32Array.from([...randomArray(500, 1, 5), 0, -0, 1, -1, 1e-20, 1e20]);
    const exponents = Float32Array.from([-3, -2, -1, -0.5, 0, 0.5, 1, 2, 3, 2.5, 7]);
    const shape = [bases.length, 1];
    const a = device.tensor(bases, { shape });
    const b = device.tensor(exponents);
    for (const name of ["div", "pow"] as const) {
      const expected = broadcastMap(BINARY_F64[name], [
        { values: bases, shape },
        { values: exponents, shape: [exponents.length] },
      ]);
      const normal = (v: number) => (Math.abs(v) < 1.2e-38 ? 0 : v); // drivers may flush subnormals
      const found = await BINARY[name](a, b).read();
      expectClose(found.map(normal), Float32Array.from(expected).map(normal), {
        atol: 0,
        rtol: 1e-5,
        label: name,
      });
    }
  });

  it("carry NaN and infinity as IEEE arithmetic does", async () => {
    const device = await testDevice();
    const special = [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 0, 1, -1];
    const a = device.tensor(special, { shape: [6, 1] });
    const b = device.tensor(special);
    for (const name of ["add", "sub", "mul", "maximum", "minimum", "pow"] as const) {
      const expected = broadcastMap(BINARY_F64[name], [
        { values: special, shape: [6, 1] },
        { values: special, shape: [6] },
      ]);
      const found = await BINARY[name](a, b).read();
      expectClose(found, expected, { atol: 0, rtol: 1e-6, label: name });
    }
  });

  it("wrap integers and keep their dtype", async () => {
    const device = await testDevice();
    const i = device.tensor(Int32Array.of(2 ** 31 - 1, -5, 9));
    const u = device.tensor(Uint32Array.of(2 ** 32 - 1, 5, 9));
    expect(await add(i, 1).read()).toEqual(Int32Array.of(-(2 ** 31), -4, 10));
    expect(await mul(u, u).read()).toEqual(Uint32Array.of(1, 25, 81));
    expect(await minimum(i, 0).read()).toEqual(Int32Array.of(0, -5, 0));
    expect(await sub(u, 6).read()).toEqual(Uint32Array.of(2 ** 32 - 7, 2 ** 32 - 1, 3));
  });

  it("handles empty tensors, scalars and more elements than one dispatch dimension holds", async () => {
    const device = await testDevice();
    expect(add(device.zeros([0, 3]), device.zeros([3])).shape).toEqual([0, 3]);
    expect(await add(device.tensor(2), device.tensor(3)).item()).toBe(5);
    const n = 65_535 * 64 + 5; // an odd row length keeps to single elements
    const x = device.zeros([2, n]);
    const column = device.tensor([1, 2], { shape: [2, 1] });
    const found = await add(x, column).read();
    expect(found.findIndex((v, i) => v !== (i < n ? 1 : 2))).toBe(-1);
    device.trim();
  });

  it("works through several windows where a tensor is over the binding limit", async () => {
    const device = await testDevice({ maxBindingBytes: 4096 });
    const values = randomArray(3000, 5);
    const x = device.tensor(values, { shape: [3, 1000] });
    const [even, odd] = await device.read([add(x, x), mul(x.slice(1, 1, 1000), 2)]);
    expect(even).toEqual(values.map((v) => v + v));
    expect(odd).toEqual(values.filter((_, i) => i % 1000 !== 0).map((v) => 2 * v));
  });

  it("refuse shapes and dtypes that do not go together, in words", async () => {
    const device = await testDevice();
    const f = device.zeros([2, 3]);
    const i = device.zeros([2, 3], "i32");
    expect(() => add(f, device.zeros([2]))).toThrow(
      new ShapeError("add: shapes [2, 3] and [2] do not broadcast"),
    );
    expect(() => mul(f, i)).toThrow(DTypeError);
    expect(() => mul(f, i)).toThrow(/mul: dtypes f32 and i32 .*cast/);
    expect(() => add(device.zeros([2], "u32"), device.zeros([2], "i32"))).toThrow(DTypeError);
    expect(() => add(i, 0.5)).toThrow(/whole number that i32 holds, found 0.5/);
    expect(() => add(device.zeros([1], "u32"), -1)).toThrow(DTypeError);
    expect(() => pow(i, 2)).toThrow(DTypeError);
    expect(() => add(1, 2)).toThrow(DTypeError);
  });
});

describe("unary operations", () => {
  const domain: Partial<Record<UnaryName, (x: number) => number>> = {
    log: (x) => Math.abs(x) + 1e-3,
    sqrt: Math.abs,
    rsqrt: (x) => Math.abs(x) + 1e-3,
  };

  it.each(Object.keys(UNARY) as UnaryName[])("%s agrees with f64", async (name) => {
    const device = await testDevice();
    const into = domain[name] ?? ((x: number) => x);
    const values = Float32Array.from(
      [...randomArray(997, 3, 10), ...randomArray(500, 4, 1e-3), 0.5, 1.5, 2.5, -0.5, 0, 3, -80, 80],
      into,
    );
    const found = await UNARY[name](device.tensor(values)).read();
    expectClose(found, Float32Array.from(values, UNARY_F64[name]), { atol: 1e-6, rtol: 1e-5, label: name });
  });

  it("tanh and sigmoid keep their relative precision near zero and saturate without overflow", async () => {
    const device = await testDevice();
    const values = Float32Array.from([
      1e-6, -1e-4, 0.01, 0.24, 0.26, -0.3, 20, -20, 89, -89, 1e5, -1e5, 3e38, -3e38,
    ]);
    const x = device.tensor(values);
    const [t, s] = await device.read([tanh(x), sigmoid(x)]);
    expectClose(t, Float32Array.from(values, Math.tanh), { atol: 0, rtol: 1e-6, label: "tanh" });
    expectClose(s, Float32Array.from(values, UNARY_F64.sigmoid), {
      atol: 1e-37,
      rtol: 2e-5,
      label: "sigmoid",
    });
  });

  it("sin and cos hold 1e-6 to 1e4", async () => {
    const device = await testDevice();
    const values = randomArray(4000, 9, 1e4);
    const x = device.tensor(values);
    const [s, c] = await device.read([sin(x), cos(x)]);
    expectClose(s, Float32Array.from(values, Math.sin), { atol: 1e-6, rtol: 0, label: "sin" });
    expectClose(c, Float32Array.from(values, Math.cos), { atol: 1e-6, rtol: 0, label: "cos" });
  });

  it.each(Object.keys(UNARY) as UnaryName[])("%s carries NaN, infinity and signed zero", async (name) => {
    const device = await testDevice();
    const values = [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 0, -0, -1];
    const found = await UNARY[name](device.tensor(values)).read();
    expectClose(found, values.map(UNARY_F64[name]), { atol: 1e-6, label: name });
  });

  it("take f16 and bf16, and integers where that makes sense", async () => {
    const device = await testDevice();
    const values = Float32Array.of(-2, 0.5, 3);
    for (const dtype of ["f16", "bf16"] as const) {
      const out = exp(device.tensor(values, { dtype }));
      expect(out.dtype).toBe("f32");
      expectClose(await out.read(), values.map(Math.exp));
    }
    const whole = device.tensor(Int32Array.of(-3, 4));
    expect(await abs(whole).read()).toEqual(Int32Array.of(3, 4));
    expect(await square(whole).read()).toEqual(Int32Array.of(9, 16));
    expect(await neg(device.tensor(Uint32Array.of(1))).read()).toEqual(Uint32Array.of(2 ** 32 - 1));
    expect(() => exp(whole)).toThrow(DTypeError);
  });
});

describe("comparisons and select", () => {
  const special = [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 0, -0, 1, -1, 1e-30];

  it.each(Object.keys(COMPARE) as CompareName[])("%s is IEEE's, NaN included", async (name) => {
    const device = await testDevice();
    const operands = [
      { values: special, shape: [8, 1] },
      { values: special, shape: [8] },
    ] as const;
    const expected = broadcastMap((a, b) => Number(COMPARE_F64[name](a, b)), operands);
    const out = COMPARE[name](device.tensor(special, { shape: [8, 1] }), device.tensor(special));
    expect(out.dtype).toBe("u32");
    expect([...(await out.read())]).toEqual(expected);
  });

  it("compare integers and numbers", async () => {
    const device = await testDevice();
    expect([...(await less(device.tensor(Int32Array.of(-1, 3)), 0).read())]).toEqual([1, 0]);
    expect([...(await greater(device.tensor(Uint32Array.of(2 ** 31, 0)), 5).read())]).toEqual([1, 0]);
    expect(() => equal(device.zeros([1]), device.zeros([1], "u32"))).toThrow(DTypeError);
  });

  it("select picks elements, broadcasting all three", async () => {
    const device = await testDevice();
    const condition = device.tensor(Uint32Array.of(0, 7), { shape: [2, 1] });
    const picked = select(condition, device.tensor([1, 2, 3]), device.tensor(9));
    expect([...(await picked.read())]).toEqual([9, 9, 9, 1, 2, 3]);
    const numbers = select(condition, 0.5, -1);
    expect([numbers.dtype, ...(await numbers.read())]).toEqual(["f32", -1, 0.5]);
    const whole = select(condition, device.tensor(Int32Array.of(4)), -2);
    expect(await whole.read()).toEqual(Int32Array.of(-2, 4));
    expect(() => select(device.zeros([2]), 1, 0)).toThrow(DTypeError);
  });
});

describe("maximum and minimum", () => {
  it("give NaN if either is", async () => {
    const device = await testDevice();
    const x = device.tensor([Number.NaN, 1]);
    const y = device.tensor([1, Number.NaN]);
    const [a, b] = await device.read([maximum(x, y), minimum(x, y)]);
    expect([...a, ...b]).toEqual([Number.NaN, Number.NaN, Number.NaN, Number.NaN]);
  });
});
