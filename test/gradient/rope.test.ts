import { beforeAll, expect, test } from "vitest";
import { Tape } from "../../src/gradient/tape.ts";
import { rope, ropePair, ropeTable } from "../../src/kernels/attention/rope.ts";
import { concat } from "../../src/kernels/movement/concat.ts";
import type { Device } from "../../src/tensor/device.ts";
import { expectClose, randomArray } from "../helpers/compare.ts";
import { testDevice } from "../helpers/device.ts";
import { checkGradients, type Numbers } from "../helpers/finite-differences.ts";

let device: Device;
beforeAll(async () => {
  device = await testDevice();
});

function rotated(x: Numbers, positions: readonly number[], table: Numbers, headDim: number, sign: number) {
  const rotaryDim = table.shape[1]!;
  const half = rotaryDim / 2;
  const heads = x.shape[1]! / headDim;
  return Float64Array.from(x.data, (value, i) => {
    const dim = i % headDim;
    if (dim >= rotaryDim) return value;
    const angles = positions[Math.floor(i / (heads * headDim))]! * rotaryDim;
    const cosine = table.data[angles + (dim % half)]!;
    const sine = sign * table.data[angles + half + (dim % half)]!;
    return dim < half ? value * cosine - x.data[i + half]! * sine : value * cosine + x.data[i - half]! * sine;
  });
}

test.each([
  { headDim: 8, rotaryDim: 8, heads: 3 }, // by fours
  { headDim: 6, rotaryDim: 6, heads: 2 },
  { headDim: 12, rotaryDim: 8, heads: 2 }, // some pass through
  { headDim: 7, rotaryDim: 4, heads: 1 },
])("$heads heads of $headDim, $rotaryDim rotated", async ({ headDim, rotaryDim, heads }) => {
  const positions = [3, 0, 1, 3, 6];
  const { cosSin } = ropeTable({ rotaryDim, theta: 10, length: 7 });
  for (const inverse of [false, true]) {
    for (const layout of [undefined, "transposed", "sliced"] as const) {
      for (const dtype of ["f32", "f16", "bf16"] as const) {
        await checkGradients(device, {
          inputs: [
            { shape: [5, heads * headDim], layout, dtype },
            { shape: [5], values: positions, dtype: "u32" },
            { shape: [7, rotaryDim], values: cosSin },
          ],
          run: (x, at, table) => rope(x!, at!, table!, { headDim, inverse }),
          reference: (x, _, table) => rotated(x!, positions, table!, headDim, inverse ? -1 : 1),
        });
      }
    }
  }
});

test("the inverse undoes it; its gradient is a rotation", async () => {
  const table = device.tensor(ropeTable({ rotaryDim: 4, theta: 100, length: 9 }).cosSin, { shape: [9, 4] });
  const positions = device.tensor(Uint32Array.of(8, 2, 5));
  const numbers = randomArray(3 * 12, 1);
  const x = device.tensor(numbers, { shape: [3, 12] });
  const there = rope(x, positions, table, { headDim: 6 });
  const back = rope(there, positions, table, { headDim: 6, inverse: true });
  expectClose(await back.read(), numbers, { atol: 1e-6 });
});

test("rows beyond the table: NaN where they are rotated, and the cotangent in what passes through", async () => {
  const table = device.tensor(ropeTable({ rotaryDim: 2, theta: 100, length: 2 }).cosSin, { shape: [2, 2] });
  const positions = device.tensor(Uint32Array.of(0, 2));
  const x = device.tensor(randomArray(6, 1), { shape: [2, 3] });
  using tape = new Tape(device);
  const [ofX, ofTable] = [tape.watch(x), tape.watch(table)];
  const out = tape.record(() => rope(x, positions, table, { headDim: 3 }));
  tape.backward(out, device.tensor([1, 2, 3, 4, 5, 6], { shape: [2, 3] }));
  const [dx, dtable] = await device.read([tape.gradient(ofX), tape.gradient(ofTable)]);
  expect(dx).toEqual(Float32Array.of(1, 2, 3, Number.NaN, Number.NaN, 6));
  expect(Array.from(dtable as Float32Array).every(Number.isFinite)).toBe(true);
});

test("a pair of queries and keys", async () => {
  const [headDim, rotaryDim] = [12, 8];
  const positions = [3, 0, 1, 3, 6];
  const { cosSin } = ropeTable({ rotaryDim, theta: 10, length: 7 });
  await checkGradients(device, {
    inputs: [
      { shape: [5, 3 * headDim] },
      { shape: [5, headDim] },
      { shape: [5], values: positions, dtype: "u32" },
      { shape: [7, rotaryDim], values: cosSin },
    ],
    run: (x, y, at, table) => concat(ropePair([x!, y!], at!, table!, { headDim }), 1),
    reference(x, y, _, table) {
      const [a, b] = [x!, y!].map((each) => rotated(each, positions, table!, headDim, 1)) as [
        Float64Array,
        Float64Array,
      ];
      const [wide, narrow] = [3 * headDim, headDim];
      return positions.flatMap((_, r) => [
        ...a.subarray(r * wide, (r + 1) * wide),
        ...b.subarray(r * narrow, (r + 1) * narrow),
      ]);
    },
  });
});
