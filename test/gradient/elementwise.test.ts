import { beforeAll, describe, expect, test } from "vitest";
import { GradientError } from "../../src/errors.ts";
import { valueAndGradients } from "../../src/gradient/grad.ts";
import { Tape } from "../../src/gradient/tape.ts";
import { activation, gatedActivation } from "../../src/kernels/elementwise/activation.ts";
import { greater, select } from "../../src/kernels/elementwise/compare.ts";
import {
  abs,
  add,
  type BinaryKind,
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
} from "../../src/kernels/elementwise/elementwise.ts";
import type { Operand } from "../../src/kernels/elementwise/map.ts";
import { randomUniform } from "../../src/kernels/elementwise/random.ts";
import type { Device } from "../../src/tensor/device.ts";
import { broadcastShapes, type Shape, sizeOf } from "../../src/tensor/shape.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { ACTIVATION_KINDS, ACTIVATION_REFERENCE, ACTIVATION_SLOPE } from "../helpers/activations.ts";
import { expectClose, randomArray } from "../helpers/compare.ts";
import { testDevice } from "../helpers/device.ts";
import { checkGradients, type Numbers, type TestInput } from "../helpers/finite-differences.ts";
import { expectEnoughKept, gradientsOf, operationsOf } from "../helpers/gradients.ts";

const { NaN: nan, POSITIVE_INFINITY: infinity } = Number;

let device: Device;
beforeAll(async () => {
  device = await testDevice();
});

/** f of operands that broadcast, in f64. */
function broadcast(operands: readonly Numbers[], f: (...values: number[]) => number): number[] {
  const shape = broadcastShapes("reference", ...operands.map((x) => x.shape));
  return Array.from({ length: sizeOf(shape) }, (_, i) => {
    const values = operands.map((x) => {
      let [rest, step, at] = [i, 1, 0];
      for (let axis = shape.length - 1; axis >= 0; axis--) {
        const n = x.shape[axis - shape.length + x.shape.length] ?? 1;
        at += n === 1 ? 0 : (rest % shape[axis]!) * step;
        step *= n;
        rest = Math.floor(rest / shape[axis]!);
      }
      return x.data[at]!;
    });
    return f(...values);
  });
}

/** Random numbers from `low` to `high`. */
function within(shape: Shape, low: number, high: number, seed: number): Float32Array {
  return randomArray(sizeOf(shape), seed).map((x) => low + ((high - low) * (x + 1)) / 2);
}

/** Inputs that take turns in layout and dtype. */
const VARIANTS: readonly Pick<TestInput, "layout" | "dtype">[] = [
  {},
  { layout: "transposed" },
  { layout: "sliced", dtype: "f16" },
  { dtype: "bf16" },
];

type Range = readonly [low: number, high: number];

interface BinaryCase {
  run: (a: Operand, b: Operand) => Tensor;
  f: (a: number, b: number) => number;
  a: Range;
  b: Range;
}

/** Each with its f64, and what its operands are taken from. */
const BINARY: Record<BinaryKind, BinaryCase> = {
  add: { run: add, f: (a: number, b: number) => a + b, a: [-1, 1], b: [-1, 1] },
  sub: { run: sub, f: (a: number, b: number) => a - b, a: [-1, 1], b: [-1, 1] },
  mul: { run: mul, f: (a: number, b: number) => a * b, a: [-1, 1], b: [-1, 1] },
  div: { run: div, f: (a: number, b: number) => a / b, a: [-1, 1], b: [-2, -0.7] },
  maximum: { run: maximum, f: Math.max, a: [-1, 1], b: [-1, 1] },
  minimum: { run: minimum, f: Math.min, a: [-1, 1], b: [-1, 1] },
  pow: { run: pow, f: (a: number, b: number) => a ** b, a: [0.3, 2], b: [-2, 3] },
};

describe.each(Object.entries(BINARY))("%s", (kind, { run, f, a: rangeA, b: rangeB }) => {
  test.each<{ a: Shape; b: Shape }>([
    { a: [5, 3], b: [5, 3] },
    { a: [2, 64], b: [2, 64] },
    { a: [4, 3, 5], b: [3, 1] },
    { a: [1, 5], b: [3, 1] },
    { a: [], b: [2, 3] },
    { a: [1], b: [1] },
  ])("$a and $b", async ({ a, b }) => {
    for (const variant of VARIANTS) {
      if (variant.layout && (a.length !== 2 || b.length !== 2)) continue;
      await checkGradients(device, {
        inputs: [
          { shape: a, values: within(a, ...rangeA, 1), ...variant },
          { shape: b, values: within(b, ...rangeB, 2), ...variant },
        ],
        run: (x, y) => run(x!, y!),
        reference: (x, y) => broadcast([x!, y!], f),
      });
    }
  });

  test("a tensor and a number, a tensor and itself", async () => {
    const values = within([3, 5], Math.max(0.2, rangeA[0]), 2, 3);
    const input = { shape: [3, 5], values };
    await checkGradients(device, {
      inputs: [input],
      run: (x) => run(x!, 0.75),
      reference: (x) => x!.data.map((v) => f(v, 0.75)),
    });
    await checkGradients(device, {
      inputs: [input],
      run: (x) => run(1.25, x!),
      reference: (x) => x!.data.map((v) => f(1.25, v)),
    });
    if (kind === "maximum" || kind === "minimum") return; // ties, below
    await checkGradients(device, {
      inputs: [input],
      run: (x) => run(x!, x!),
      reference: (x) => x!.data.map((v) => f(v, v)),
    });
  });
});

describe("where derivatives are a matter of convention, as in PyTorch", () => {
  test("equal operands of maximum and minimum share; NaN counts as greater and as less", async () => {
    const [a, b] = [
      [1, 1, 2, nan, 1, -0, infinity],
      [1, 2, 1, 1, nan, 0, infinity],
    ];
    const dy = [2, 4, 6, 8, 10, 2, 2];
    expect(await gradientsOf(device, maximum, [a!, b!], dy)).toEqual([
      [1, 0, 6, 8, 10, 1, 1],
      [1, 4, 0, 8, 10, 1, 1],
    ]);
    expect(await gradientsOf(device, minimum, [a!, b!], dy)).toEqual([
      [1, 4, 0, 8, 10, 1, 1],
      [1, 0, 6, 8, 10, 1, 1],
    ]);
  });

  test("abs at 0 has derivative 0; NaN stays NaN", async () => {
    expect(await gradientsOf(device, abs, [[0, -3, nan, infinity]], 2)).toEqual([[0, -2, nan, 2]]);
  });

  test("powers of 0 and of negative numbers", async () => {
    const bases = [0, 0, 0, -2, -2, 0, nan];
    const exponents = [0, 1, 2, 3, 0, 0.5, 2];
    const [da, db] = await gradientsOf(device, pow, [bases, exponents]);
    expectClose(da!, [0, 1, 0, 12, 0, infinity, nan], { atol: 0, rtol: 1e-5 });
    expectClose(db!, [0, 0, 0, nan, nan, 0, nan], { atol: 0, rtol: 1e-5 });
    const [cubes] = await gradientsOf(device, (x) => pow(x, 3), [[-2, -0.5, 0, 4]]);
    expectClose(cubes!, [12, 0.75, 0, 48], { rtol: 1e-5 });
  });
});

const UNARY: Record<string, { run: (x: Tensor) => Tensor; f: (x: number) => number; range: Range }> = {
  neg: { run: neg, f: (x: number) => -x, range: [-2, 2] },
  abs: { run: abs, f: Math.abs, range: [-2, 2] },
  square: { run: square, f: (x: number) => x * x, range: [-2, 2] },
  exp: { run: exp, f: Math.exp, range: [-4, 2] },
  log: { run: log, f: Math.log, range: [0.2, 3] },
  sqrt: { run: sqrt, f: Math.sqrt, range: [0.2, 3] },
  rsqrt: { run: rsqrt, f: (x: number) => 1 / Math.sqrt(x), range: [0.2, 3] },
  tanh: { run: tanh, f: Math.tanh, range: [-3, 3] },
  sigmoid: { run: sigmoid, f: (x: number) => 1 / (1 + Math.exp(-x)), range: [-5, 5] },
  sin: { run: sin, f: Math.sin, range: [-9, 9] },
  cos: { run: cos, f: Math.cos, range: [-9, 9] },
};

describe.each(Object.entries(UNARY))("%s", (kind, { run, f, range }) => {
  test("against differences", async () => {
    for (const shape of [
      [3, 1],
      [2, 5],
      [2, 64],
    ]) {
      for (const variant of VARIANTS) {
        await checkGradients(device, {
          inputs: [{ shape, values: within(shape, ...range, 4), ...variant }],
          run: (x) => run(x!),
          reference: (x) => x!.data.map((v) => f(v)),
        });
      }
    }
  });

  test("NaN stays NaN", async () => {
    if (kind === "neg") return; // its derivative does not look at the argument
    for (const x of [[nan], [nan, 1, nan, 1]]) {
      const [dx] = await gradientsOf(device, run, [x]);
      expect(dx!.map(Number.isNaN)).toEqual(x.map(Number.isNaN));
    }
  });
});

describe("far from 0", () => {
  test("tanh and sigmoid keep the digits of small derivatives, and end at 0", async () => {
    const x = [-infinity, -200, -60, -30, -12, -1e-4, 0, 5, 12, 30, 60, 200, 1e30, infinity];
    const bell = (v: number) => (Math.abs(v) > 87 ? 0 : Math.exp(-v) / (1 + Math.exp(-v)) ** 2);
    const [tanhSlopes] = await gradientsOf(device, tanh, [x]);
    expectClose(
      tanhSlopes!,
      x.map((v) => 4 * bell(2 * v)),
      { atol: 1e-37, rtol: 2e-5 },
    );
    const [sigmoidSlopes] = await gradientsOf(device, sigmoid, [x]);
    expectClose(sigmoidSlopes!, x.map(bell), { atol: 1e-37, rtol: 2e-5 });
  });

  test("roots and logarithms of small and large numbers", async () => {
    const x = [1e-20, 1e-6, 1e6, 1e20];
    const cases = [
      [log, (v: number) => 1 / v],
      [sqrt, (v: number) => 0.5 / Math.sqrt(v)],
      [rsqrt, (v: number) => -0.5 * v ** -1.5],
    ] as const;
    for (const [run, slope] of cases) {
      const [dx] = await gradientsOf(device, run, [x]);
      expectClose(dx!, x.map(slope), { atol: 0, rtol: 1e-5, label: run.name });
    }
  });
});

describe("what changes in steps", () => {
  test("gives nothing back", async () => {
    for (const steps of [floor, ceil, round]) {
      expect(await gradientsOf(device, (x) => add(mul(x, 3), steps(x)), [[0.3, -1.7]])).toEqual([[3, 3]]);
      expect(await gradientsOf(device, (x) => mul(x, steps(x)), [[2.2, -1.7]])).toEqual([
        Array.from(await device.scope(() => steps(device.tensor([2.2, -1.7]))).read()),
      ]);
      const x = device.tensor([1.5]);
      expect(() => valueAndGradients(() => steps(x), [x])).toThrow(GradientError);
      x.dispose();
    }
  });

  test("random numbers have no inputs", async () => {
    const noise = () => randomUniform(device, [3], { seed: 5 });
    const dx = Array.from(await device.scope(noise).read());
    expect(await gradientsOf(device, (x) => mul(x, noise()), [[1, 2, 3]])).toEqual([dx]);
  });
});

describe("select", () => {
  const condition: TestInput = { shape: [3, 4], values: [1, 0, 0, 7, 1, 1, 0, 0, 0, 1, 0, 1], dtype: "u32" };

  test("two tensors, with broadcasting", async () => {
    for (const [a, b] of [
      [[3, 4], [4]],
      [
        [3, 1],
        [2, 3, 4],
      ],
    ] as const) {
      await checkGradients(device, {
        inputs: [condition, { shape: a }, { shape: b, dtype: "f16" }],
        run: (c, x, y) => select(c!, x!, y!),
        reference: (c, x, y) => broadcast([c!, x!, y!], (yes, v, w) => (yes ? v : w)),
      });
    }
  });

  test("a tensor and a number", async () => {
    const input = { shape: [3, 4] };
    await checkGradients(device, {
      inputs: [condition, input],
      run: (c, x) => select(c!, x!, 2),
      reference: (c, x) => broadcast([c!, x!], (yes, v) => (yes ? v : 2)),
    });
    await checkGradients(device, {
      inputs: [condition, input],
      run: (c, x) => select(c!, 2, x!),
      reference: (c, x) => broadcast([c!, x!], (yes, v) => (yes ? 2 : v)),
    });
  });

  test("a condition of what is differentiated; what is not chosen gets 0, whatever comes", async () => {
    const clipped = (x: Tensor) => select(greater(x, 0), x, 0.5);
    expect(await gradientsOf(device, clipped, [[1, -1, 0]], [2, 5, infinity])).toEqual([[2, 0, 0]]);
  });
});

describe.each(ACTIVATION_KINDS)("activation %s", (kind) => {
  const f = ACTIVATION_REFERENCE[kind];

  test("against differences, plain and gated", async () => {
    for (const shape of [
      [3, 1],
      [5, 3],
      [2, 64],
      [1, 130],
    ]) {
      const plain = shape.includes(1);
      for (const [i, variant] of VARIANTS.slice(0, plain ? 1 : 4).entries()) {
        const values = within(shape, -4, 4, 6);
        await checkGradients(device, {
          inputs: [{ shape, values, ...variant }],
          run: (x) => activation(x!, kind),
          reference: (x) => x!.data.map((v) => f(v)),
        });
        await checkGradients(device, {
          inputs: [
            { shape, values, ...variant },
            { shape, ...VARIANTS[(i + 1) % VARIANTS.length] },
          ],
          run: (gate, up) => gatedActivation(gate!, up!, kind),
          reference: (gate, up) => gate!.data.map((v, j) => f(v) * up!.data[j]!),
        });
      }
    }
  });

  test("the derivative from -15 to 15, and its tails", async () => {
    const grid = Array.from({ length: 12_001 }, (_, i) => (i - 6000) / 400);
    const [slopes] = await gradientsOf(device, (x) => activation(x, kind), [grid]);
    const found = (i: number) => slopes![i]!;
    expectClose(slopes!, grid.map(ACTIVATION_SLOPE[kind]), { atol: 1e-6, rtol: 1e-6 });
    // The relative error of exp(-t) is that of t times t.
    const tails = [...grid.keys()].filter((i) => grid[i]! < -4 && grid[i]! > -9);
    expectClose(
      tails.map(found),
      tails.map((i) => ACTIVATION_SLOPE[kind](grid[i]!)),
      { atol: 1e-37, rtol: 1e-4, label: "tail" },
    );
  });

  test("the limits far out, and NaN", async () => {
    const x = [-infinity, -3e38, -1e30, -1e4, -200, 200, 1e4, 1e30, infinity];
    const limits = x.map((v) => (v < 0 ? 0 : kind === "relu2" ? 2 * v : 1));
    const [plain] = await gradientsOf(device, (v) => activation(v, kind), [x]);
    expectClose(plain!, limits, { atol: 0, rtol: 1e-7 });
    const ups = x.map((_, i) => i - 3);
    const [gates] = await gradientsOf(device, (v) => gatedActivation(v, device.tensor(ups), kind), [
      x.map((v) => v / 2),
    ]);
    expectClose(
      gates!,
      limits.map((slope, i) => (slope / (kind === "relu2" ? 2 : 1)) * ups[i]! || 0),
      { atol: 0, rtol: 1e-6 },
    );
    const [nans] = await gradientsOf(device, (v) => activation(v, kind), [[nan, 1, nan]]);
    expect(nans!.map(Number.isNaN)).toEqual([true, false, true]);
  });
});

test("rules name the values that they read", async () => {
  const scope = device.openScope();
  const tensor = (seed: number) => scope.enter(() => device.tensor(within([6], 0.2, 2, seed)));
  try {
    const [x, y] = [tensor(1), tensor(2)];
    for (const { run } of Object.values(BINARY)) {
      await expectEnoughKept(device, (a, b) => run(a!, b!), [x, y]);
      await expectEnoughKept(device, (a) => run(a!, 0.5), [x]);
      await expectEnoughKept(device, (b) => run(0.5, b!), [x]);
    }
    for (const { run } of Object.values(UNARY)) await expectEnoughKept(device, (a) => run(a!), [x]);
    await expectEnoughKept(device, (a) => activation(a!, "gelu"), [x]);
    await expectEnoughKept(device, (a, b) => gatedActivation(a!, b!, "silu"), [x, y]);
    await expectEnoughKept(device, (a, b) => select(greater(a!, 1), a!, b!), [x, y]);
    await expectEnoughKept(device, (a) => select(greater(a!, 1), 2, a!), [x]);
  } finally {
    scope.dispose();
  }
});

test("one kernel a gradient of an activation", () => {
  device.scope(() => {
    const [gate, up] = [device.tensor(randomArray(12, 1)), device.tensor(randomArray(12, 2))];
    const backward = (run: () => ReturnType<typeof activation>) => {
      using tape = new Tape(device);
      tape.watch(gate);
      tape.watch(up);
      const out = tape.record(run);
      return operationsOf(device, () => tape.backward(out));
    };
    expect(backward(() => activation(gate, "silu"))).toEqual(["activationBackward"]);
    expect(backward(() => gatedActivation(gate, up, "silu"))).toEqual([
      "activationBackward",
      "gatedActivation",
    ]);
  });
});
