import { expect, test } from "vitest";
import { ShapeError } from "../../src/errors.ts";
import { encode } from "../../src/tensor/dtype.ts";
import { AdamW, type AdamWOptions } from "../../src/training/adamw.ts";
import { expectClose, seededNumbers } from "../helpers/compare.ts";
import { testDevice } from "../helpers/device.ts";

const device = await testDevice();

/** PyTorch's AdamW in f64; changes `x`. Gives the norm of all gradients. */
function reference(options: Required<Omit<AdamWOptions, "each">>) {
  const { learningRate, betas, eps, weightDecay, maxGradNorm } = options;
  const moments = new Map<string, { mean: Float64Array; square: Float64Array }>();
  let step = 0;
  return (
    x: Record<string, Float64Array>,
    gradients: Record<string, ArrayLike<number>>,
    rate = learningRate,
  ) => {
    step++;
    const all = Object.values(gradients).flatMap((g) => Array.from(g));
    const norm = Math.sqrt(all.reduce((sum, g) => sum + g * g, 0));
    const clip = Math.min(1, maxGradNorm / (norm + 1e-6));
    for (const [name, gradient] of Object.entries(gradients)) {
      const values = x[name]!;
      const { length } = values;
      const { mean, square } = moments.get(name) ?? {
        mean: new Float64Array(length),
        square: new Float64Array(length),
      };
      moments.set(name, { mean, square });
      for (let i = 0; i < length; i++) {
        const g = gradient[i]! * clip;
        mean[i] = betas[0] * mean[i]! + (1 - betas[0]) * g;
        square[i] = betas[1] * square[i]! + (1 - betas[1]) * g * g;
        const root = Math.sqrt(square[i]! / (1 - betas[1] ** step)) + eps;
        values[i] = values[i]! * (1 - rate * weightDecay) - (rate * mean[i]!) / (1 - betas[0] ** step) / root;
      }
    }
    return norm;
  };
}

const OPTIONS = { learningRate: 0.01, betas: [0.8, 0.97], eps: 1e-6, weightDecay: 0.1 } as const;

function numbers(count: number, seed: number): Float32Array {
  const next = seededNumbers(seed);
  return Float32Array.from({ length: count }, next);
}

// Of gradients of norm 3 or so: clipped every time, sometimes, never.
test.each([0.1, 3, 1e9])("five steps as in f64, clipped to %d", async (maxGradNorm) => {
  const start = { a: numbers(15, 1), b: numbers(6, 2) };
  const a = device.tensor(start.a, { shape: [3, 5] });
  const b = device.tensor(start.b, { shape: [3, 2] }).transpose(); // in memory as it was
  using optimizer = new AdamW(device, { a, b }, { ...OPTIONS, maxGradNorm });
  const expected = { a: Float64Array.from(start.a), b: Float64Array.from(start.b) };
  const step = reference({ ...OPTIONS, maxGradNorm });
  for (let i = 0; i < 5; i++) {
    const rate = 0.01 / (i + 1);
    const gradients = { a: numbers(15, 10 + i), b: numbers(6, 20 + i) };
    const given = {
      a: device.tensor(gradients.a, { shape: [3, 5] }),
      b: device.tensor(gradients.b, { shape: [3, 2] }).transpose(),
    };
    const norm = step(expected, gradients, rate);
    expect(await optimizer.step(given, rate / OPTIONS.learningRate).item()).toBeCloseTo(norm, 4);
  }
  expect(optimizer.steps).toBe(5);
  for (const [name, tensor] of Object.entries({ a, b: b.transpose() })) {
    const found = await tensor.read();
    const wanted = expected[name as "a" | "b"];
    expectClose(found, wanted, { atol: 2e-6, rtol: 0 });
    expect(
      Math.max(...wanted.map((value, i) => Math.abs(value - start[name as "a" | "b"][i]!))),
    ).toBeGreaterThan(0.01);
  }
});

test("parameters in bf16 are kept unrounded: steps below a rounding add up", async () => {
  const start = [1, -2, 3, 0.5, 8, -0.25];
  const x = device.tensor(start, { dtype: "bf16" });
  const options = { ...OPTIONS, weightDecay: 0, maxGradNorm: 1e9 };
  using optimizer = new AdamW(device, { x }, options);
  const expected = { x: Float64Array.from(start) };
  const step = reference(options);
  for (let i = 0; i < 12; i++) {
    // A bf16 at 1 has steps of 2^-7 upwards: a step of 1e-3 alone would be lost.
    const gradient = numbers(6, i).map((g) => g - 2);
    step(expected, { x: gradient }, 1e-3);
    optimizer.step({ x: device.tensor(gradient) }, 0.1);
  }
  const found = await x.read();
  expect([...found]).toEqual([...rounded(expected.x)]);
  expect(found[0]).toBeGreaterThan(1);
  const state = optimizer.state.tensors["x.value"]!;
  expectClose(await state.read(), expected.x, { atol: 1e-6 });

  function rounded(values: ArrayLike<number>): Float32Array {
    const bits = new Uint16Array(encode(Array.from(values), "bf16").slice().buffer);
    return new Float32Array(Uint32Array.from(bits, (half) => half << 16).buffer);
  }
});

test("parameters may have a learning rate and a decay of their own, and are clipped together", async () => {
  const start = { a: numbers(6, 1), b: numbers(4, 2) };
  const [a, b] = [device.tensor(start.a), device.tensor(start.b)];
  const own = { learningRate: 0.03, weightDecay: 0 };
  const options = { ...OPTIONS, maxGradNorm: 0.5 };
  using optimizer = new AdamW(device, { a, b }, { ...options, each: (name) => (name === "b" ? own : {}) });
  const expected = { a: Float64Array.from(start.a), b: Float64Array.from(start.b) };
  const steps = { a: reference(options), b: reference({ ...options, ...own }) };
  for (let i = 0; i < 4; i++) {
    const gradients = { a: numbers(6, 10 + i), b: numbers(4, 20 + i) };
    // Each by itself, with what clipping makes of both.
    const norm = Math.hypot(...gradients.a, ...gradients.b);
    const clip = Math.min(1, 0.5 / (norm + 1e-6));
    for (const name of ["a", "b"] as const) {
      const { learningRate } = name === "b" ? own : OPTIONS;
      const clipped = gradients[name].map((g) => g * clip);
      steps[name]({ [name]: expected[name] }, { [name]: clipped }, learningRate * 0.5);
    }
    const given = { a: device.tensor(gradients.a), b: device.tensor(gradients.b) };
    expect(await optimizer.step(given, 0.5).item()).toBeCloseTo(norm, 4);
  }
  expectClose(await a.read(), expected.a, { atol: 2e-6, rtol: 0 });
  expectClose(await b.read(), expected.b, { atol: 2e-6, rtol: 0 });
});

test("gradients may lie otherwise in memory than their parameters", async () => {
  const start = numbers(12, 1);
  const gradient = numbers(12, 2);
  const stepped = async (transposed: readonly ("parameter" | "gradient")[]) => {
    const of = (values: Float32Array, part: "parameter" | "gradient") =>
      transposed.includes(part)
        ? device.tensor(transpose(values, 3, 4), { shape: [4, 3] }).transpose()
        : device.tensor(values, { shape: [3, 4] });
    const x = of(start, "parameter");
    using optimizer = new AdamW(device, { x }, OPTIONS);
    optimizer.step({ x: of(gradient, "gradient") });
    return await x.read();
  };
  const expected = await stepped([]);
  for (const parts of [["parameter"], ["gradient"], ["parameter", "gradient"]] as const) {
    expect(await stepped(parts)).toEqual(expected);
  }

  function transpose(values: Float32Array, rows: number, columns: number): Float32Array {
    return values.map((_, i) => values[(i % rows) * columns + Math.floor(i / rows)]!);
  }
});

test("a parameter without a gradient stays as it is, decay included", async () => {
  const [a, b] = [device.tensor([1, 2]), device.tensor([3, 4])];
  using optimizer = new AdamW(device, { a, b }, OPTIONS);
  optimizer.step({ a: device.tensor([1, 1]) });
  expect([...(await b.read())]).toEqual([3, 4]);
  expect([...(await a.read())]).not.toEqual([1, 2]);
});

test("mistakes are named", () => {
  const whole = device.zeros([4, 4]);
  expect(() => new AdamW(device, { x: whole.slice(1, 0, 2) })).toThrow(
    /^x: expected floats that lie side by side/,
  );
  expect(() => new AdamW(device, { x: device.zeros([2], "i32") })).toThrow(ShapeError);
  using optimizer = new AdamW(device, { x: whole });
  expect(() => optimizer.step({ y: whole })).toThrow(/y: expected a parameter of the optimizer/);
  expect(() => optimizer.step({ x: device.zeros([3]) })).toThrow(/x: expected \[4, 4\], found \[3\]/);
  expect(() => optimizer.restore(1, new Map())).toThrow(/x\.value: expected 16 numbers, found none/);
});
