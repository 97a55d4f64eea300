import { describe, expect, test } from "vitest";
import { Tape } from "../../src/gradient/tape.ts";
import { add, mul } from "../../src/kernels/elementwise/elementwise.ts";
import { type LayerNormOptions, layerNorm } from "../../src/kernels/reduction/layer-norm.ts";
import {
  max,
  mean,
  min,
  norm,
  product,
  type ReduceOptions,
  sum,
  variance,
} from "../../src/kernels/reduction/reduce.ts";
import { rmsNorm } from "../../src/kernels/reduction/rms-norm.ts";
import { logSoftmax, softmax } from "../../src/kernels/reduction/softmax.ts";
import type { Device } from "../../src/tensor/device.ts";
import type { DeviceOptions } from "../../src/tensor/open-device.ts";
import { type Shape, sizeOf } from "../../src/tensor/shape.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { expectClose, randomArray } from "../helpers/compare.ts";
import { testDevice } from "../helpers/device.ts";
import { checkGradients, type Numbers, type TestInput } from "../helpers/finite-differences.ts";
import { expectEnoughKept, gradientsOf, operationsOf } from "../helpers/gradients.ts";

const { NaN: nan, NEGATIVE_INFINITY: impossible } = Number;

/** Both ways in which row kernels share out their work. */
const STYLES: [string, DeviceOptions][] = [
  ["register", { kernels: "register" }],
  ["workgroup", { kernels: "workgroup" }],
];

/** f of every run of elements along `axis`, in place of it. */
function along({ shape, data }: Numbers, axis: number, f: (run: number[]) => number[]): Float64Array {
  const length = shape[axis]!;
  const inner = shape.slice(axis + 1).reduce((product, n) => product * n, 1);
  const out = new Float64Array(data.length);
  for (let start = 0; start < data.length; start += length * inner) {
    for (let i = 0; i < inner; i++) {
      const at = Array.from({ length }, (_, j) => start + j * inner + i);
      f(at.map((place) => data[place]!)).forEach((value, j) => {
        out[at[j]!] = value;
      });
    }
  }
  return out;
}

/** Reductions in f64 along several axes, row-major over the others. */
function reduced({ shape, data }: Numbers, axes: readonly number[], f: (values: number[]) => number) {
  const groups = new Map<string, number[]>();
  data.forEach((value, i) => {
    let rest = i;
    const place = shape.map(() => 0);
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      place[axis] = rest % shape[axis]!;
      rest = Math.floor(rest / shape[axis]!);
    }
    const key = place.filter((_, axis) => !axes.includes(axis)).join();
    groups.set(key, [...(groups.get(key) ?? []), value]);
  });
  return [...groups.values()].map(f);
}

const total = (x: readonly number[]) => x.reduce((a, b) => a + b, 0);
const average = (x: readonly number[]) => total(x) / x.length;

interface Reduction {
  run: (x: Tensor, axes: readonly number[], options: ReduceOptions) => Tensor;
  f: (x: number[]) => number;
}

const KINDS: Record<string, Reduction> = {
  sum: { run: sum, f: total },
  mean: { run: mean, f: average },
  product: { run: product, f: (x) => x.reduce((a, b) => a * b, 1) },
  max: { run: max, f: (x) => Math.max(...x) },
  min: { run: min, f: (x) => Math.min(...x) },
};

describe.each(Object.entries(KINDS))("%s", (_kind, { run, f }) => {
  test.each<{ shape: Shape; axes: number[] }>([
    { shape: [3, 1], axes: [1] },
    { shape: [5, 3], axes: [0] },
    { shape: [3, 4, 5], axes: [0, 2] },
    { shape: [3, 4, 5], axes: [1] },
    { shape: [2, 130], axes: [1] },
    { shape: [4, 6], axes: [0, 1] },
  ])("$shape along $axes", async ({ shape, axes }) => {
    const device = await testDevice();
    const variants: Pick<TestInput, "layout" | "dtype">[] = [{}, { layout: "transposed" }];
    if (shape.length === 2) variants.push({ layout: "sliced", dtype: "f16" });
    for (const [i, variant] of variants.entries()) {
      // Away from 0, or nothing would be left of the product of 130.
      const values = randomArray(sizeOf(shape), 8).map((x) => Math.sign(x) * (1 + 0.1 * x));
      await checkGradients(device, {
        inputs: [{ shape, values, ...variant }],
        run: (x) => run(x!, axes, { keepDims: i % 2 === 1 }),
        reference: (x) => reduced(x!, axes, f),
      });
    }
  });
});

test("along no axis, and without axes; no elements", async () => {
  const device = await testDevice();
  for (const run of [sum, product]) {
    await checkGradients(device, {
      inputs: [{ shape: [0, 3] }],
      run: (x) => run(x!, 0),
      reference: () => new Array(3).fill(run === sum ? 0 : 1),
    });
  }
  await checkGradients(device, {
    inputs: [{ shape: [3, 4] }],
    run: (x) => sum(x!, []),
    reference: (x) => x!.data,
  });
  await checkGradients(device, {
    inputs: [{ shape: [3, 4] }],
    run: (x) => norm(x!),
    reference: (x) => [Math.hypot(...x!.data)],
  });
  await checkGradients(device, {
    inputs: [{ shape: [3, 4] }],
    run: (x) => variance(x!, 1, { correction: 1 }),
    reference: (x) =>
      reduced(x!, [1], (row) => {
        const centre = average(row);
        return total(row.map((v) => (v - centre) ** 2)) / (row.length - 1);
      }),
  });
});

test("equal extremes share evenly, and NaN makes the gradient NaN, as torch.amax does", async () => {
  const device = await testDevice();
  const x = [1, 3, 3, 2, 3];
  const third = Math.fround(6 / 3);
  expect(await gradientsOf(device, (v) => max(v), [x], 6)).toEqual([[0, third, third, 0, third]]);
  expect(await gradientsOf(device, (v) => min(v), [[2, 2, 5]], 6)).toEqual([[3, 3, 0]]);
  expect(await gradientsOf(device, (v) => max(v), [[1, nan]])).toEqual([[nan, nan]]);
});

test("a product with zeros among its factors", async () => {
  const device = await testDevice();
  expect(await gradientsOf(device, (v) => product(v), [[2, 0, 5]], 3)).toEqual([[0, 30, 0]]);
  expect(await gradientsOf(device, (v) => product(v), [[2, 0, 5, 0]], 3)).toEqual([[0, 0, 0, 0]]);
  expect(await gradientsOf(device, (v) => product(v), [[7]], 3)).toEqual([[3]]);
});

test("rules name the values that they read", async () => {
  const device = await testDevice();
  const scope = device.openScope();
  try {
    const [x, w, b] = scope.enter(() => [
      device.tensor(randomArray(12, 1), { shape: [3, 4] }),
      device.tensor(randomArray(4, 2)),
      device.tensor(randomArray(4, 3)),
    ]);
    for (const { run } of Object.values(KINDS)) {
      await expectEnoughKept(device, (v) => run(v!, [1], {}), [x!]);
    }
    await expectEnoughKept(device, (v) => softmax(v!), [x!]);
    await expectEnoughKept(device, (v) => logSoftmax(v!, 0), [x!]);
    await expectEnoughKept(device, (v, u) => rmsNorm(v!, u!, { eps: 1e-3, offset: 1 }), [x!, w!]);
    await expectEnoughKept(device, (...all) => layerNorm(all[0]!, all[1]!, all[2]!, { eps: 1e-3 }), [
      x!,
      w!,
      b!,
    ]);
  } finally {
    scope.dispose();
  }
});

function softmaxOf(row: number[], log: boolean): number[] {
  const shift = Math.max(...row);
  const sum = total(row.map((v) => Math.exp(v - shift)));
  return row.map((v) => (log ? v - shift - Math.log(sum) : Math.exp(v - shift) / sum));
}

describe.each(STYLES)("softmax, %s", (_style, options) => {
  test.each<{ shape: Shape; axis: number }>([
    { shape: [3, 1], axis: 1 },
    { shape: [9, 3], axis: 1 },
    { shape: [3, 64], axis: 1 },
    { shape: [2, 130], axis: 1 },
    { shape: [3, 4, 5], axis: 0 },
    { shape: [3, 4, 5], axis: -2 },
    { shape: [0, 4], axis: 1 },
  ])("$shape along $axis", async ({ shape, axis }) => {
    const device = await testDevice(options);
    for (const [run, log] of [[softmax, false] as const, [logSoftmax, true] as const]) {
      for (const [layout, dtype] of [[undefined, "f32"] as const, ["transposed", "f16"] as const]) {
        await checkGradients(device, {
          inputs: [{ shape, values: randomArray(sizeOf(shape), 3, 4), layout, dtype }],
          run: (x) => run(x!, axis),
          reference: (x) => along(x!, axis < 0 ? axis + shape.length : axis, (row) => softmaxOf(row, log)),
        });
      }
    }
  });

  test("extremes: impossible choices, whole rows of them, large numbers, NaN", async () => {
    const device = await testDevice(options);
    const rows = [
      [1, impossible, 2, 0],
      [impossible, impossible, impossible, impossible],
      [1e4, -1e4, 1e4, -3e38],
      [0, nan, 1, 2],
    ];
    const dy = [0.5, -1, 2, 0.25];
    for (const [row, values] of rows.entries()) {
      const [dx] = await gradientsOf(device, (x) => softmax(x), [values], dy);
      const [dxLog] = await gradientsOf(device, (x) => logSoftmax(x), [values], dy);
      const y = row === 1 ? [0, 0, 0, 0] : softmaxOf(values, false);
      const weighted = total(y.map((p, i) => p * dy[i]!));
      expectClose(
        dx!,
        y.map((p, i) => p * (dy[i]! - weighted)),
        { label: `row ${row}` },
      );
      const expected = row === 1 ? [0, 0, 0, 0] : y.map((p, i) => dy[i]! - p * total(dy));
      expectClose(dxLog!, expected, { label: `row ${row} of logarithms` });
    }
  });

  test("a long row", async () => {
    const device = await testDevice(options);
    const n = 20_000;
    const dy = randomArray(n, 5);
    const x = Array.from(randomArray(n, 6, 3));
    const y = softmaxOf(x, false);
    const weighted = total(y.map((p, i) => p * dy[i]!));
    const [dx] = await gradientsOf(device, (v) => softmax(v), [x], dy);
    expectClose(
      dx!,
      y.map((p, i) => p * (dy[i]! - weighted)),
      { atol: 1e-9, rtol: 1e-5 },
    );
  });
});

function layerReference(x: Numbers, weight: Numbers, bias: Numbers | undefined, eps: number): Float64Array {
  return along(x, x.shape.length - 1, (row) => {
    const centre = average(row);
    const variance = average(row.map((v) => (v - centre) ** 2));
    return row.map(
      (v, i) => ((v - centre) / Math.sqrt(variance + eps)) * weight.data[i]! + (bias?.data[i] ?? 0),
    );
  });
}

function rmsReference(x: Numbers, weight: Numbers, eps: number, offset: number): Float64Array {
  return along(x, x.shape.length - 1, (row) => {
    const rms = Math.sqrt(average(row.map((v) => v * v)) + eps);
    return row.map((v, i) => (v / rms) * (offset + weight.data[i]!));
  });
}

const NORM_CASES: (Pick<TestInput, "layout" | "dtype"> & {
  shape: Shape;
  weights: "f32" | "f16" | "bf16";
})[] = [
  { shape: [4, 1], weights: "f32" },
  { shape: [9, 3], weights: "f16", layout: "transposed" },
  { shape: [3], weights: "f32" },
  { shape: [2, 3, 64], weights: "bf16", dtype: "f16" },
  { shape: [5, 64], weights: "f32", layout: "sliced" },
  { shape: [2, 130], weights: "f32", dtype: "bf16" },
  { shape: [2, 132], weights: "f16" },
];

describe.each(STYLES)("norms, %s", (_style, options) => {
  test.each(NORM_CASES)("$shape $layout $dtype, weights $weights", async (c) => {
    const device = await testDevice(options);
    const { shape, weights, layout, dtype } = c;
    const width = shape.at(-1)!;
    const x = { shape, layout, dtype } as TestInput;
    const weight = { shape: [width], dtype: weights };
    for (const offset of [0, 1]) {
      await checkGradients(device, {
        inputs: [x, weight],
        run: (v, w) => rmsNorm(v!, w!, { eps: 1e-2, offset }),
        reference: (v, w) => rmsReference(v!, w!, 1e-2, offset),
      });
    }
    for (const withBias of [false, true]) {
      await checkGradients(device, {
        inputs: withBias ? [x, weight, weight] : [x, weight],
        run: (v, w, b) => layerNorm(v!, w!, b, { eps: 1e-2 }),
        reference: (v, w, b) => layerReference(v!, w!, b, 1e-2),
      });
    }
  });

  test("only what is wanted; a tensor that is both x and weight", async () => {
    const device = await testDevice(options);
    const x = { shape: [3, 8] };
    for (const wanted of [0, 1, 2]) {
      const part = (i: number, shape: Shape) => ({ shape, gradient: i === wanted });
      await checkGradients(device, {
        inputs: [part(0, x.shape), part(1, [8]), part(2, [8])],
        run: (v, w, b) => layerNorm(v!, w!, b!, { eps: 1e-3 }),
        reference: (v, w, b) => layerReference(v!, w!, b!, 1e-3),
      });
      if (wanted === 2) continue;
      await checkGradients(device, {
        inputs: [part(0, x.shape), part(1, [8])],
        run: (v, w) => rmsNorm(v!, w!, { eps: 1e-3 }),
        reference: (v, w) => rmsReference(v!, w!, 1e-3, 0),
      });
    }
    await checkGradients(device, {
      inputs: [{ shape: [7] }],
      run: (v) => rmsNorm(v!, v!, { eps: 1e-3 }),
      reference: (v) => rmsReference(v!, v!, 1e-3, 0),
    });
  });

  test.each([3, 64])(
    "a residual stream of width %i: the sum so far is added by the norm's kernel",
    async (width) => {
      const device = await testDevice(options);
      const norms: [string, (x: Tensor, w: Tensor) => Tensor, (x: Numbers, w: Numbers) => Float64Array][] = [
        ["rmsNorm", (x, w) => rmsNorm(x, w, { eps: 1e-3 }), (x, w) => rmsReference(x, w, 1e-3, 0)],
        [
          "layerNorm",
          (x, w) => layerNorm(x, w, undefined, { eps: 1e-3 }),
          (x, w) => layerReference(x, w, undefined, 1e-3),
        ],
      ];
      for (const [name, norm, reference] of norms) {
        await checkGradients(device, {
          inputs: [{ shape: [5, width] }, { shape: [width] }],
          run: (x, w) => add(x!, norm(x!, w!)),
          reference: (x, w) => reference(x!, w!).map((y, i) => y + x!.data[i]!),
        });
        device.scope(() => {
          using tape = new Tape(device);
          const [x, w] = [device.tensor(randomArray(width, 1)), device.tensor(randomArray(width, 2))];
          tape.watch(x);
          const out = tape.record(() => add(x, norm(x, w)));
          expect(operationsOf(device, () => tape.backward(out))).toEqual([`${name}Backward`]);
        });
      }
    },
  );

  test("a mean a thousand times the deviation, tiny rows and large ones", async () => {
    const device = await testDevice(options);
    const noise = randomArray(96, 4);
    const cases: { values: Float32Array; options: LayerNormOptions }[] = [
      { values: noise.map((v) => v + 1000), options: { eps: 1e-5 } },
      { values: noise.map((v) => v * 1e-4), options: { eps: 1e-5 } },
      { values: noise.map((v) => v * 1e6), options: { eps: 1e-5 } },
      { values: new Float32Array(96).fill(3), options: { eps: 1e-5 } },
    ];
    const w = randomArray(96, 7);
    const dy = randomArray(96, 8);
    const g = Array.from(w, (v, i) => v * dy[i]!);
    for (const [i, c] of cases.entries()) {
      const x = Array.from(c.values);
      const slope = (centre: number) => {
        const v = x.map((each) => each - centre);
        const factor = 1 / Math.sqrt(average(v.map((each) => each * each)) + c.options.eps);
        const along = average(v.map((each, j) => each * factor * g[j]!));
        const gMean = centre === 0 ? 0 : average(g);
        return v.map((each, j) => (g[j]! - gMean - each * factor * along) * factor);
      };
      const check = async (run: (v: Tensor, weight: Tensor) => Tensor, expected: number[], label: string) => {
        const [dx] = await gradientsOf(device, run, [x, Array.from(w)], dy);
        const largest = Math.max(...expected.map(Math.abs));
        expectClose(dx!, expected, { atol: 1e-4 * largest, rtol: 0, label: `${label} ${i}` });
      };
      await check((v, weight) => layerNorm(v, weight, undefined, c.options), slope(average(x)), "layer");
      await check((v, weight) => rmsNorm(v, weight, c.options), slope(0), "rms");
    }
  });

  test("a row with NaN spoils that row alone", async () => {
    const device: Device = await testDevice(options);
    const scope = device.openScope();
    try {
      const [x, w] = scope.enter(() => [
        device.tensor([1, nan, 2, 3, 4, 5], { shape: [2, 3] }),
        device.tensor([1, 2, 3]),
      ]);
      for (const norm of [
        () => layerNorm(x!, w!, undefined, { eps: 1e-3 }),
        () => rmsNorm(x!, w!, { eps: 1e-3 }),
        () => mul(softmax(x!), w!),
      ]) {
        using tape = new Tape(device);
        const watched = tape.watch(x!);
        const out = scope.enter(() => tape.record(norm));
        scope.enter(() => tape.backward(out));
        const dx = await scope.enter(() => tape.gradient(watched)).read();
        expect(Array.from(dx, Number.isNaN)).toEqual([true, true, true, false, false, false]);
      }
    } finally {
      scope.dispose();
    }
  });
});
