import { beforeAll, describe, expect, test } from "vitest";
import { Tape } from "../../src/gradient/tape.ts";
import { concat } from "../../src/kernels/movement/concat.ts";
import { cast, copy } from "../../src/kernels/movement/copy.ts";
import { gatherRows, takeAlongAxis } from "../../src/kernels/movement/gather.ts";
import {
  addRows,
  type EditKind,
  interpolateRows,
  keepDirectionRows,
  projectOutRows,
  type RowSelection,
  scaleRows,
  setRows,
  zeroRows,
} from "../../src/kernels/movement/row-edits.ts";
import { scatterAdd } from "../../src/kernels/movement/scatter-add.ts";
import type { Device } from "../../src/tensor/device.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { expectClose, randomArray, seededNumbers } from "../helpers/compare.ts";
import { testDevice } from "../helpers/device.ts";
import { checkGradients, type Numbers, type TestInput } from "../helpers/finite-differences.ts";

let device: Device;
beforeAll(async () => {
  device = await testDevice();
});

/** The gradients of what `run` makes of tensors, for a cotangent. */
async function gradients(
  inputs: readonly Tensor[],
  run: () => Tensor,
  cotangent: ArrayLike<number>,
): Promise<Float32Array[]> {
  using tape = new Tape(device);
  const watched = inputs.map((input) => tape.watch(input));
  const result = tape.record(run);
  tape.backward(result, device.tensor(cotangent, { shape: result.shape }));
  return device.read(watched.map((each) => tape.gradient(each))) as Promise<Float32Array[]>;
}

describe("cast", () => {
  // Multiples of 1/64 are the same in every dtype.
  const values = Array.from({ length: 35 }, (_, i) => ((i * 29) % 71) / 64);
  test.each(["f32", "f16", "bf16"] as const)("from %s to all", async (dtype) => {
    for (const layout of [undefined, "transposed", "sliced"] as const) {
      for (const to of ["f32", "f16", "bf16"] as const) {
        await checkGradients(device, {
          inputs: [{ shape: [5, 7], values, dtype, layout }],
          run: (x) => cast(x!, to),
          reference: (x) => x!.data,
        });
      }
    }
  });
});

describe("concat", () => {
  test.each([
    { axis: 0, a: [3, 5], b: [1, 5], joined: (r: number, c: number) => (r < 3 ? r * 5 + c : undefined) },
    { axis: 1, a: [5, 3], b: [5, 4], joined: (r: number, c: number) => (c < 3 ? r * 3 + c : undefined) },
  ])("$a with $b", async ({ axis, a, b, joined }) => {
    const columns = axis === 0 ? 5 : 7 + 3;
    const rows = axis === 0 ? 3 + 1 + 3 : 5;
    // The first comes again at the end.
    const reference = (x: Numbers, y: Numbers) =>
      Array.from({ length: rows * columns }, (_, i) => {
        const [r, c] = [Math.floor(i / columns), i % columns];
        const first = joined(r, c);
        if (first !== undefined) return x.data[first]!;
        const [r2, c2] = axis === 0 ? [r - 3, c] : [r, c - 3];
        const [height, width] = b as [number, number];
        if (r2 < height && c2 < width) return y.data[r2 * width + c2]!;
        return x.data[axis === 0 ? (r - 4) * 5 + c : r * 3 + (c - 7)]!;
      });
    for (const layout of [undefined, "transposed", "sliced"] as const) {
      for (const dtype of ["f32", "f16"] as const) {
        await checkGradients(device, {
          inputs: [
            { shape: a, layout, dtype },
            { shape: b, layout },
          ],
          run: (x, y) => concat([x!, y!, x!], axis),
          reference: (x, y) => reference(x!, y!),
        });
      }
    }
  });
});

describe("gatherRows", () => {
  test.each([
    { rows: 6, width: 4, ids: [5, 0, 0, 3, 5, 0] },
    { rows: 3, width: 7, ids: [1] },
    { rows: 1, width: 1, ids: [0, 0, 0] },
    { rows: 9, width: 12, ids: [8, 7, 6, 5, 4] },
  ])("$ids of [$rows, $width]", async ({ rows, width, ids }) => {
    for (const layout of [undefined, "transposed", "sliced"] as const) {
      for (const dtype of ["f32", "f16", "bf16"] as const) {
        await checkGradients(device, {
          inputs: [
            { shape: [rows, width], layout, dtype },
            { shape: [ids.length], values: ids, dtype: "u32" },
          ],
          run: (table, at) => gatherRows(table!, at!),
          reference: (table) => ids.flatMap((id) => [...table!.data.slice(id * width, (id + 1) * width)]),
        });
      }
    }
  });

  test("ids outside of the table give nothing, whatever comes back for them", async () => {
    const table = device.tensor(randomArray(15, 1), { shape: [5, 3] });
    for (const ids of [Int32Array.of(-1, 2, 5, 2), Uint32Array.of(7, 2, 2 ** 32 - 1, 2)]) {
      const at = device.tensor(ids);
      const [found] = await gradients([table], () => gatherRows(table, at), [
        ...[Number.NaN, Number.NaN, Number.NaN],
        ...[1, 2, 3],
        ...[Number.POSITIVE_INFINITY, 0, 0],
        ...[10, 20, 30],
      ]);
      expect(found).toEqual(Float32Array.of(0, 0, 0, 0, 0, 0, 11, 22, 33, 0, 0, 0, 0, 0, 0));
    }
  });

  test("the gradient of a transposed table lies in memory as the table does", () => {
    using tape = new Tape(device);
    const table = device.tensor(randomArray(15, 1), { shape: [3, 5] }).transpose();
    const watched = tape.watch(table);
    tape.backward(tape.record(() => gatherRows(table, device.tensor(Uint32Array.of(4, 1)))));
    expect(tape.gradient(watched).strides).toEqual(table.strides);
  });
});

describe("scatterAdd", () => {
  test.each([{}, { maxBindingBytes: 16_384 }])(
    "of many ids of which many are equal, in batches, the same bits in each run %o",
    async (options) => {
      const limited = await testDevice(options);
      const [batches, n, width, rows] = [2, 700, 5, 311];
      const next = seededNumbers(3);
      const ids = Uint32Array.from({ length: batches * n }, () => Math.floor(Math.abs(next()) * 1.1 * rows));
      ids.fill(7, 100, 400);
      const source = randomArray(batches * n * width, 4);
      const expected = new Float64Array(batches * rows * width);
      ids.forEach((id, i) => {
        if (id >= rows) return;
        const row = Math.floor(i / n) * rows + id;
        for (let c = 0; c < width; c++) expected[row * width + c]! += source[i * width + c]!;
      });
      const from = limited.tensor(source, { shape: [batches, n, width] });
      const at = limited.tensor(ids, { shape: [batches, n] });
      const found = await scatterAdd(from, at, rows).read();
      expectClose(found, expected, { atol: 1e-4, rtol: 0 });
      expect(await scatterAdd(from, at, rows).read()).toEqual(found);
      expect(await scatterAdd(from, at, rows, { transposed: true }).read()).toEqual(found);
      const views = [from.transpose(), at.transpose()].map((x) => copy(x).transpose()) as [Tensor, Tensor];
      expect(await scatterAdd(copy(views[0]), views[1], rows).read()).toEqual(found);
    },
  );

  test("of no ids, and shapes and dtypes that do not fit", async () => {
    const none = scatterAdd(device.zeros([1, 0, 3]), device.zeros([1, 0], "u32"), 2);
    expect(await none.read()).toEqual(new Float32Array(6));
    const ids = device.zeros([1, 2], "u32");
    expect(() => scatterAdd(device.zeros([2, 3]), ids, 2)).toThrow(/expected a source .* found \[2, 3\]/);
    expect(() => scatterAdd(device.zeros([1, 3, 3]), ids, 2)).toThrow(/found \[1, 3, 3\] and \[1, 2\]/);
    expect(() => scatterAdd(device.zeros([1, 2, 3]), device.zeros([1, 2]), 2)).toThrow(/integer ids/);
    expect(() => scatterAdd(device.zeros([1, 2, 3], "u32"), ids, 2)).toThrow(/float source/);
  });
});

describe("takeAlongAxis", () => {
  test.each([
    { shape: [4, 6], axis: -1, picks: 3 },
    { shape: [6, 4], axis: 0, picks: 9 },
    { shape: [2, 5, 3], axis: 1, picks: 2 },
    { shape: [7], axis: 0, picks: 1 },
  ])("$picks along axis $axis of $shape", async ({ shape, axis, picks }) => {
    const at = axis < 0 ? axis + shape.length : axis;
    const n = shape[at]!;
    const picked = shape.with(at, picks);
    const inner = shape.slice(at + 1).reduce((product, size) => product * size, 1);
    const count = picked.reduce((product, size) => product * size, 1);
    const ids = Array.from({ length: count }, (_, i) => (i * 7 + (i % 3)) % n);
    const layouts = shape.length === 1 ? [undefined] : ([undefined, "transposed"] as const);
    for (const layout of layouts) {
      for (const dtype of ["f32", "bf16"] as const) {
        await checkGradients(device, {
          inputs: [
            { shape, layout, dtype },
            { shape: picked, values: ids, dtype: "i32", layout },
          ],
          run: (x, chosen) => takeAlongAxis(x!, chosen!, axis),
          reference: (x) =>
            ids.map((id, i) => {
              const outer = Math.floor(i / (picks * inner));
              return x!.data[(outer * n + id) * inner + (i % inner)]!;
            }),
        });
      }
    }
  });

  test("ids out of range give nothing", async () => {
    const x = device.tensor(randomArray(6, 1), { shape: [2, 3] });
    const ids = device.tensor(Int32Array.of(3, 1, 1, -1, 0, 2), { shape: [2, 3] });
    const cotangent = [Number.NaN, 1, 2, Number.NaN, 4, 5];
    const [found] = await gradients([x], () => takeAlongAxis(x, ids), cotangent);
    expect(found).toEqual(Float32Array.of(0, 3, 0, 4, 0, 5));
  });
});

const AMOUNT = 0.7;

function applyEdit(
  kind: EditKind,
  x: Tensor,
  at: RowSelection,
  value: Tensor | undefined,
  features: { start: number; end: number },
  amount = AMOUNT,
): Tensor {
  switch (kind) {
    case "set":
      return setRows(x, at, value!, { features });
    case "add":
      return addRows(x, at, value!, { features, factor: amount });
    case "scale":
      return scaleRows(x, at, amount, { features });
    case "zero":
      return zeroRows(x, at, { features });
    case "interpolate":
      return interpolateRows(x, at, value!, amount, { features });
    case "projectOut":
      return projectOutRows(x, at, value!, { features });
    case "keepDirection":
      return keepDirectionRows(x, at, value!, { features });
  }
}

/** In f64; rows that there are not are passed over. */
function edited(
  kind: EditKind,
  x: Numbers,
  rows: readonly number[],
  value: Numbers | undefined,
  { start, end }: { start: number; end: number },
  amount = AMOUNT,
): Float64Array {
  const [height, width] = x.shape as [number, number];
  const out = x.data.slice();
  rows.forEach((row, slot) => {
    if (row < 0 || row >= height) return;
    const v = value && (value.shape.length === 1 ? value.data : value.data.slice(slot * (end - start)));
    let [dot, length] = [0, 0];
    for (let f = 0; v && f < end - start; f++) {
      dot += x.data[row * width + start + f]! * v[f]!;
      length += v[f]! * v[f]!;
    }
    for (let f = 0; f < end - start; f++) {
      const i = row * width + start + f;
      const old = x.data[i]!;
      out[i] = {
        set: () => v![f]!,
        add: () => old + amount * v![f]!,
        scale: () => old * amount,
        zero: () => 0,
        interpolate: () => (1 - amount) * old + amount * v![f]!,
        projectOut: () => old - (dot / length) * v![f]!,
        keepDirection: () => (dot / length) * v![f]!,
      }[kind]();
    }
  });
  return out;
}

describe("row edits", () => {
  const KINDS = ["set", "add", "scale", "zero", "interpolate", "projectOut", "keepDirection"] as const;
  const shape = [6, 7];
  const selections: { at: RowSelection | Int32Array; rows: number[] }[] = [
    { at: { start: 1, end: 4 }, rows: [1, 2, 3] },
    { at: { start: 0, end: 6 }, rows: [0, 1, 2, 3, 4, 5] },
    { at: [4, 0, 3], rows: [4, 0, 3] },
    { at: Int32Array.of(5, -1, 0, 6), rows: [5, -1, 0, 6] },
  ];
  test.each(KINDS)("%s: ranges, indices, features, one value and one for each row", async (kind) => {
    const valued = kind !== "scale" && kind !== "zero";
    for (const { at, rows } of selections) {
      for (const features of [
        { start: 0, end: 7 },
        { start: 2, end: 5 },
      ]) {
        const wide = features.end - features.start;
        for (const valueShape of valued ? [[wide], [rows.length, wide]] : [undefined]) {
          const inputs: TestInput[] = [{ shape }];
          if (valueShape) inputs.push({ shape: valueShape });
          const selection = at instanceof Int32Array ? device.tensor(at) : at;
          await checkGradients(device, {
            inputs,
            run: (x, value) => applyEdit(kind, x!, selection, value, features),
            reference: (x, value) => edited(kind, x!, rows, value, features),
          });
        }
      }
    }
  });

  test.each(KINDS)("%s: layouts and dtypes", async (kind) => {
    const valued = kind !== "scale" && kind !== "zero";
    const features = { start: 1, end: 6 };
    for (const layout of ["transposed", "sliced"] as const) {
      for (const dtype of ["f32", "f16", "bf16"] as const) {
        const inputs: TestInput[] = [{ shape, layout, dtype }];
        if (valued) inputs.push({ shape: [2, 5], layout, dtype });
        await checkGradients(device, {
          inputs,
          run: (x, value) => applyEdit(kind, x!, [5, 2], value, features),
          reference: (x, value) => edited(kind, x!, [5, 2], value, features),
        });
      }
    }
  });

  test.each([0, 1])("interpolate all the way to one side: t = %d", async (amount) => {
    const features = { start: 0, end: 7 };
    await checkGradients(device, {
      inputs: [{ shape }, { shape: [7] }],
      run: (x, value) => applyEdit("interpolate", x!, [1, 4], value, features, amount),
      reference: (x, value) => edited("interpolate", x!, [1, 4], value, features, amount),
    });
  });

  test("x and the value are one tensor", async () => {
    await checkGradients(device, {
      inputs: [{ shape }],
      run: (x) => setRows(x!, [0, 3], x!.rows(3, 5)),
      reference: (x) => {
        const value = { shape: [2, 7], data: x!.data.slice(21, 35) };
        return edited("set", x!, [0, 3], value, { start: 0, end: 7 });
      },
    });
  });

  test("what was overwritten has gradient 0, even where the cotangent is infinite", async () => {
    const x = device.tensor(randomArray(6, 1), { shape: [3, 2] });
    const value = device.tensor(randomArray(2, 2));
    const infinite = [1, 2, Number.POSITIVE_INFINITY, Number.NaN, 5, 6];
    for (const run of [
      () => setRows(x, [1], value),
      () => zeroRows(x, device.tensor(Uint32Array.of(1))),
      () => interpolateRows(x, [1], value, 1),
    ]) {
      const [found] = await gradients([x], run, infinite);
      expect(found).toEqual(Float32Array.of(1, 2, 0, 0, 5, 6));
    }
    // And a value of rows that there are not has none.
    const [, ofValue] = await gradients(
      [x, value],
      () => setRows(x, device.tensor(Uint32Array.of(3)), value),
      infinite,
    );
    expect(ofValue).toEqual(Float32Array.of(0, 0));
  });

  test("a direction of zeros, and directions whose squares are not f32 numbers", async () => {
    const x = device.tensor([1, 2, 3, 4, 5, 6], { shape: [2, 3] });
    for (const project of [projectOutRows, keepDirectionRows]) {
      const zeros = device.zeros([3]);
      const [, none] = await gradients([x, zeros], () => project(x, [0, 1], zeros), [1, 2, 3, 4, 5, 6]);
      expect(none).toEqual(new Float32Array(3));
      for (const scale of [1e-25, 1e25]) {
        const [unit, scaled] = [1, scale].map((s) => device.tensor([s, -2 * s, 3 * s])) as [Tensor, Tensor];
        const [dx, dv] = await gradients([x, unit], () => project(x, [0, 1], unit), [1, 2, 3, 4, 5, 1]);
        const found = await gradients([x, scaled], () => project(x, [0, 1], scaled), [1, 2, 3, 4, 5, 1]);
        expectClose(found[0]!, dx!, { atol: 1e-5, rtol: 1e-5 });
        expectClose(
          found[1]!.map((y) => y * scale),
          dv!,
          { atol: 1e-5, rtol: 1e-5 },
        );
      }
    }
  });
});
