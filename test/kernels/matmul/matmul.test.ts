import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { DTypeError, ShapeError } from "../../../src/errors.ts";
import { linear, preferredWeightLayout, toPreferredLayout } from "../../../src/kernels/matmul/linear.ts";
import { matmul } from "../../../src/kernels/matmul/matmul.ts";
import type { Device } from "../../../src/tensor/device.ts";
import type { DeviceOptions } from "../../../src/tensor/open-device.ts";
import type { Tensor } from "../../../src/tensor/tensor.ts";
import { randomArray } from "../../helpers/compare.ts";
import { testDevice } from "../../helpers/device.ts";

const styles: [string, DeviceOptions][] = [
  ["register", { kernels: "register" }],
  ["workgroup", { kernels: "workgroup" }],
];
/** Matrix-vector kernels reduce in another way where there are no subgroups. */
const vectorStyles: typeof styles = [
  ...styles,
  ["workgroup without subgroups", { kernels: "workgroup", without: ["subgroups"] }],
];

type FloatDType = "f32" | "f16" | "bf16";
type Layout = "plain" | "transposed" | "odd start" | "odd stride" | "aligned slice";

interface Sums {
  sums: Float64Array;
  /** Sums of the magnitudes of all terms, which rounding errors are relative to. */
  magnitudes: Float64Array;
  /** Terms per sum. */
  terms: number;
}

/** [rows, depth] @ [depth, columns] in f64. */
function reference(
  a: ArrayLike<number>,
  b: ArrayLike<number>,
  [rows, depth, columns]: readonly [number, number, number],
): Sums {
  const sums = new Float64Array(rows * columns);
  const magnitudes = new Float64Array(rows * columns);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) {
      for (let k = 0; k < depth; k++) {
        const product = a[i * depth + k]! * b[k * columns + j]!;
        sums[i * columns + j]! += product;
        magnitudes[i * columns + j]! += Math.abs(product);
      }
    }
  }
  return { sums, magnitudes, terms: depth };
}

/** Adds a term to each sum. */
function plus({ sums, magnitudes, terms }: Sums, term: (i: number) => number): Sums {
  return {
    sums: sums.map((sum, i) => sum + term(i)),
    magnitudes: magnitudes.map((sum, i) => sum + Math.abs(term(i))),
    terms: terms + 1,
  };
}

/** Within the a-priori error bound of a sum in f32 in any order: (terms + 1) * 2^-24 * sum of magnitudes. */
function expectSums(actual: ArrayLike<number>, { sums, magnitudes, terms }: Sums, label = ""): void {
  expect(actual.length, label).toBe(sums.length);
  for (let i = 0; i < sums.length; i++) {
    const bound = (terms + 1) * 2 ** -24 * magnitudes[i]!;
    if (!(Math.abs(actual[i]! - sums[i]!) <= bound)) {
      expect.fail(`${label} element ${i}: found ${actual[i]}, expected ${sums[i]} within ${bound}`);
    }
  }
}

/** A matrix of random numbers as callers may hand it in. */
function matrix(
  device: Device,
  [rows, columns]: readonly [number, number],
  { dtype = "f32", layout = "plain", seed = 1 }: { dtype?: FloatDType; layout?: Layout; seed?: number },
): Tensor {
  const random = (shape: readonly [number, number]) =>
    device.tensor(randomArray(shape[0] * shape[1], seed), { shape, dtype });
  switch (layout) {
    case "plain":
      return random([rows, columns]);
    case "transposed":
      return random([columns, rows]).transpose();
    case "odd start":
      return random([rows + 2, columns + 8])
        .slice(0, 2)
        .slice(1, 3, 3 + columns);
    case "odd stride":
      return random([rows, columns + 5]).slice(1, 4, 4 + columns);
    case "aligned slice":
      return random([rows + 1, columns + 8])
        .slice(0, 1)
        .slice(1, 4, 4 + columns);
  }
}

/** Runs `check` and disposes of the tensors that it made before its first await. */
async function withTensors(device: Device, check: () => Promise<void>): Promise<void> {
  const scope = device.openScope();
  try {
    await scope.enter(check);
  } finally {
    scope.dispose();
  }
}

/** Sizes around the edges of tiles, and multiples of four. */
const size = (max: number) =>
  fc.oneof(
    fc.integer({ min: 1, max }),
    fc.integer({ min: 1, max: Math.floor(max / 4) }).map((n) => n * 4),
  );

// Each combination compiles kernels of its own, so there are a few telling ones instead of all.
const operands = fc.constantFrom<[[FloatDType, Layout], [FloatDType, Layout]]>(
  [
    ["f32", "plain"],
    ["f32", "plain"],
  ],
  [
    ["f32", "plain"],
    ["f16", "transposed"],
  ],
  [
    ["f32", "aligned slice"],
    ["bf16", "aligned slice"],
  ],
  [
    ["f32", "odd start"],
    ["f16", "odd start"],
  ],
  [
    ["f32", "odd stride"],
    ["f16", "odd stride"],
  ],
  [
    ["f32", "transposed"],
    ["f32", "transposed"],
  ],
  [
    ["f16", "plain"],
    ["bf16", "transposed"],
  ],
);

describe.each(styles)("matmul, %s kernels", (_name, options) => {
  it("agrees with f64 for any sizes and layouts", async () => {
    const device = await testDevice(options);
    const shapes = fc.tuple(size(80), size(70), size(140));
    await fc.assert(
      fc.asyncProperty(shapes, operands, fc.nat(), ([rows, depth, columns], [forA, forB], seed) =>
        withTensors(device, async () => {
          const a = matrix(device, [rows, depth], { dtype: forA[0], layout: forA[1], seed });
          const b = matrix(device, [depth, columns], { dtype: forB[0], layout: forB[1], seed: seed + 1 });
          const out = matmul(a, b);
          expect(out.shape).toEqual([rows, columns]);
          expect(out.dtype).toBe("f32");
          const [aValues, bValues, values] = await device.read([a, b, out]);
          expectSums(values, reference(aValues, bValues, [rows, depth, columns]), `${a} @ ${b}`);
        }),
      ),
      { numRuns: 40 },
    );
  });

  it("broadcasts leading dimensions of strided batches", async () => {
    const device = await testDevice(options);
    for (const [aShape, bShape, batch] of [
      [[3, 5, 8], [3, 8, 12], [3]],
      [[7, 6], [4, 6, 3], [4]],
      [
        [2, 1, 5, 4],
        [3, 4, 4],
        [2, 3],
      ],
      [
        [2, 1, 3, 1, 5, 4],
        [1, 2, 1, 3, 4, 8],
        [2, 2, 3, 3],
      ],
      [[0, 2, 3], [3, 2], [0]],
    ] as const) {
      await withTensors(device, async () => {
        // The memory has the last two dimensions of a swapped, and b starts in the middle of its buffer.
        const swapped = [...aShape.slice(0, -2), aShape.at(-1)!, aShape.at(-2)!];
        const count = (shape: readonly number[]) => shape.reduce((product, n) => product * n, 1);
        const a = device.tensor(randomArray(count(aShape), 1), { shape: swapped }).transpose();
        const b = device
          .tensor(randomArray(2 * count(bShape), 2), { shape: [2 * bShape[0], ...bShape.slice(1)] })
          .rows(bShape[0]);
        const out = matmul(a, b);
        const [rows, depth, columns] = [aShape.at(-2)!, aShape.at(-1)!, bShape.at(-1)!];
        expect(out.shape).toEqual([...batch, rows, columns]);
        const [aValues, bValues, values] = await device.read([
          a.broadcastTo([...batch, rows, depth]),
          b.broadcastTo([...batch, depth, columns]),
          out,
        ]);
        for (let i = 0; i < count(batch); i++) {
          const part = (x: Float32Array, length: number) => x.subarray(i * length, (i + 1) * length);
          expectSums(
            part(values as Float32Array, rows * columns),
            reference(
              part(aValues as Float32Array, rows * depth),
              part(bValues as Float32Array, depth * columns),
              [rows, depth, columns],
            ),
            `${a} @ ${b}, batch ${i}`,
          );
        }
      });
    }
  });

  it("gives an empty result without rows or columns, and zeros without depth", async () => {
    const device = await testDevice(options);
    await withTensors(device, async () => {
      const product = (rows: number, depth: number, columns: number) =>
        matmul(device.zeros([rows, depth]), device.zeros([depth, columns]));
      expect(product(0, 3, 4).shape).toEqual([0, 4]);
      expect(product(3, 4, 0).shape).toEqual([3, 0]);
      // The pool hands out a buffer with old contents, so that zeros have to be written.
      device.tensor(new Float32Array(12).fill(7), { shape: [3, 4] }).dispose();
      expect([...(await product(3, 0, 4).read())]).toEqual(new Array(12).fill(0));
    });
  });

  it("reads tensors beyond the binding limit", async () => {
    const device = await testDevice({ ...options, maxBindingBytes: 4096 });
    for (const [rows, layout] of [
      [1, "plain"],
      [40, "plain"],
      [5, "transposed"],
    ] as const) {
      await withTensors(device, async () => {
        const x = matrix(device, [rows, 36], { seed: 1 }); // up to 5,760 bytes
        const weight = matrix(device, [120, 36], { layout, seed: 2 }); // 17,280 bytes
        const out = linear(x, weight); // up to 19,200 bytes
        const [xValues, wValues, values] = await device.read([x, weight.transpose(), out]);
        expectSums(values, reference(xValues, wValues, [rows, 36, 120]), `${rows} rows, ${layout}`);
      });
    }
  });
});

describe.each(vectorStyles)("special values, %s kernels", (_name, options) => {
  it.each([1, 3, 8, 37])("NaN and infinity stay in their rows and columns, %i rows", async (rows) => {
    const device = await testDevice(options);
    const [depth, columns] = [20, 44];
    for (const layout of ["plain", "transposed"] as const) {
      await withTensors(device, async () => {
        const a = new Float32Array(rows * depth).fill(0.5);
        a[(rows - 1) * depth + 7] = Number.NaN; // the last row
        const b = new Float32Array(columns * depth).fill(0.25);
        b[5 * depth + 2] = Number.POSITIVE_INFINITY; // column 5
        b[9 * depth + 2] = Number.NEGATIVE_INFINITY;
        b[9 * depth + 3] = Number.POSITIVE_INFINITY; // column 9: infinity - infinity
        const x = device.tensor(a, { shape: [rows, depth] });
        const weight = device.tensor(b, { shape: [columns, depth], dtype: "f16" });
        const values = await linear(x, layout === "plain" ? weight : toColumns(weight, b)).read();
        for (let i = 0; i < values.length; i++) {
          const [row, column] = [Math.floor(i / columns), i % columns];
          const expected =
            row === rows - 1 || column === 9 ? Number.NaN : column === 5 ? Number.POSITIVE_INFINITY : 2.5;
          expect(values[i], `row ${row}, column ${column}`).toBe(expected);
        }
      });
    }

    /** The same weight, stored transposed. */
    function toColumns({ dtype }: Tensor, values: Float32Array): Tensor {
      const transposed = Float32Array.from(
        values,
        (_, i) => values[(i % columns) * depth + Math.floor(i / columns)]!,
      );
      return device.tensor(transposed, { shape: [depth, columns], dtype }).transpose();
    }
  });

  it.each([
    ["f32", 2 ** 127, 2 ** -126],
    ["f32", 2 ** -120, 2 ** 120],
    ["bf16", 2 ** 127, 2 ** -126],
    ["f16", 65504, 2],
    ["f16", 2 ** -24, 2 ** 24], // the smallest subnormal half
  ] as const)("a %s weight of %d times %d is exact", async (dtype, value, factor) => {
    const device = await testDevice(options);
    await withTensors(device, async () => {
      const weight = device.tensor([value, 0, 0, 0], { shape: [1, 4], dtype });
      const x = device.tensor([factor, 1, 1, 1], { shape: [1, 4] });
      expect(await linear(x, weight).item()).toBe(value * factor);
    });
  });
});

const weights = fc.constantFrom<[FloatDType, Layout]>(
  ["f16", "plain"],
  ["f16", "transposed"],
  ["bf16", "plain"],
  ["f32", "transposed"],
  ["f32", "odd start"],
);
const extras = fc.constantFrom(
  { bias: false, add: false },
  { bias: true, add: false },
  { bias: false, add: true },
);

describe.each(vectorStyles)("linear, %s kernels", (_name, options) => {
  it("agrees with f64 for few and many rows, both weight layouts, bias and addend", async () => {
    const device = await testDevice(options);
    const shapes = fc.tuple(fc.oneof(fc.integer({ min: 1, max: 9 }), size(70)), size(300), size(150));
    await fc.assert(
      fc.asyncProperty(
        shapes,
        weights,
        extras,
        fc.nat(),
        ([rows, depth, columns], [dtype, layout], use, seed) =>
          withTensors(device, async () => {
            const x = matrix(device, [rows, depth], { layout: "aligned slice", seed });
            const weight = matrix(device, [columns, depth], { dtype, layout, seed: seed + 1 });
            const bias = device.tensor(randomArray(columns, 2), { dtype });
            const add = matrix(device, [rows, columns], { layout: "odd start", seed: 3 });
            const out = linear(x, weight, {
              bias: use.bias ? bias : undefined,
              add: use.add ? add : undefined,
            });
            const [xValues, wValues, biasValues, addValues, values] = await device.read([
              x,
              weight.transpose(),
              bias,
              add,
              out,
            ]);
            let expected = reference(xValues, wValues, [rows, depth, columns]);
            if (use.bias) expected = plus(expected, (i) => biasValues[i % columns]!);
            if (use.add) expected = plus(expected, (i) => addValues[i]!);
            expectSums(values, expected, `${x} @ ${weight} ${layout}`);
          }),
      ),
      { numRuns: 40 },
    );
  });

  it.each([1, 12])("takes bias and addend together, %i rows", async (rows) => {
    const device = await testDevice(options);
    await withTensors(device, async () => {
      const out = linear(device.zeros([rows, 8]), device.zeros([4, 8]), {
        bias: device.tensor([1, 2, 3, 4]),
        add: device.tensor([10]).broadcastTo([rows, 4]),
      });
      expect([...(await out.read())]).toEqual(Array.from({ length: rows }, () => [11, 12, 13, 14]).flat());
    });
  });

  it("has a preferred layout that keeps every bit", async () => {
    const device = await testDevice(options);
    for (const dtype of ["f32", "f16", "bf16"] as const) {
      for (const shape of [
        [36, 20],
        [36, 21],
        [37, 20],
        [1, 3],
      ] as const) {
        await withTensors(device, async () => {
          const weight = matrix(device, shape, { dtype });
          const original = weight.alias();
          const preferred = toPreferredLayout(weight);
          weight.dispose();
          const again = toPreferredLayout(preferred);
          expect(preferred.shape).toEqual(shape);
          expect(preferred.dtype).toBe(dtype);
          const layout = shape[0] % 4 === 0 ? preferredWeightLayout(device) : "NK";
          expect(preferred.strides).toEqual(layout === "NK" ? [shape[1], 1] : [1, shape[0]]);
          expect(again.strides).toEqual(preferred.strides);
          const [expected, values] = await device.read([original, preferred]);
          expect(values).toEqual(expected);
        });
      }
    }
  });
});

describe("more workgroups than one dispatch dimension holds", () => {
  it("matrices of a batch (register kernels)", async () => {
    const device = await testDevice({ kernels: "register" });
    await withTensors(device, async () => {
      const batches = 66_001; // a workgroup each
      const a = device.tensor(randomArray(batches, 1), { shape: [batches, 1, 1] });
      const out = matmul(a, device.tensor([2, 3], { shape: [1, 2] }));
      const [factors, values] = await device.read([a, out]);
      expect(values).toEqual(values.map((_, i) => Math.fround(factors[i >> 1]! * (2 + (i % 2)))));
    });
  });

  it("rows (register kernels)", async () => {
    const device = await testDevice({ kernels: "register" });
    await withTensors(device, async () => {
      const rows = 530_000; // eight to a workgroup
      const x = device.tensor(randomArray(rows, 1), { shape: [rows, 1] });
      const [factors, values] = await device.read([x, linear(x, device.tensor([3], { shape: [1, 1] }))]);
      expect(values).toEqual(factors.map((n) => 3 * n));
    });
  });

  it("columns (workgroup kernels)", async () => {
    const device = await testDevice({ kernels: "workgroup" });
    await withTensors(device, async () => {
      const columns = 265_004; // four to a workgroup
      const weight = device.tensor(randomArray(4 * columns, 1), { shape: [columns, 4] });
      const out = linear(device.tensor([0, 0, 2, 0], { shape: [1, 4] }), weight);
      const [factors, values] = await device.read([weight, out]);
      expect(values).toEqual(values.map((_, i) => 2 * factors[4 * i + 2]!));
    });
  });
});

it("gives a row the same bits whatever rows come with it, with subgroups and without (register kernels)", async () => {
  const bits: number[][] = [];
  for (const without of [[], ["subgroups"]] as const) {
    const device = await testDevice({ kernels: "register", without });
    await withTensors(device, async () => {
      const x = matrix(device, [41, 75], {});
      const weight = toPreferredLayout(matrix(device, [52, 75], { dtype: "f16", seed: 2 }));
      const cuts = [0, 1, 4, 11, 24, 41];
      const parts = cuts.slice(1).map((end, i) => linear(x.rows(cuts[i]!, end), weight));
      const [all, ...some] = await device.read([linear(x, weight), ...parts]);
      bits.push(
        [...all!],
        some.flatMap((values) => [...values]),
      );
    });
  }
  const [first, ...others] = bits;
  for (const other of others) expect(other).toEqual(first);
});

describe("errors", () => {
  it("name the operation and the shapes", async () => {
    const device = await testDevice();
    await withTensors(device, async () => {
      const zeros = (...shape: number[]) => device.zeros(shape);
      expect(() => matmul(zeros(2, 3), zeros(4, 5))).toThrow(ShapeError);
      expect(() => matmul(zeros(2, 3), zeros(4, 5))).toThrow(/matmul: .*\[2, 3\] and \[4, 5\]/);
      expect(() => matmul(zeros(3), zeros(3, 5))).toThrow(ShapeError);
      expect(() => matmul(zeros(2, 4, 3), zeros(3, 3, 5))).toThrow(/matmul: .*do not broadcast/);
      expect(() => matmul(device.zeros([2, 3], "i32"), zeros(3, 2))).toThrow(DTypeError);
      expect(() => linear(zeros(2, 3), zeros(3, 4))).toThrow(/linear: .*\[2, 3\] and \[3, 4\]/);
      expect(() => linear(zeros(2, 3), zeros(4, 3), { bias: zeros(3) })).toThrow(/bias \[4\], found \[3\]/);
      expect(() => linear(zeros(2, 3), zeros(4, 3), { add: zeros(2, 3) })).toThrow(
        /add \[2, 4\], found \[2, 3\]/,
      );
      expect(() => linear(zeros(2, 3), device.zeros([4, 3], "u32"))).toThrow(DTypeError);
      expect(() => toPreferredLayout(zeros(2, 3, 4))).toThrow(ShapeError);
    });
  });
});
