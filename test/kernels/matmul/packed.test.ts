import { describe, expect, it } from "vitest";
import { ShapeError } from "../../../src/errors.ts";
import { linear } from "../../../src/kernels/matmul/linear.ts";
import { gatherRows } from "../../../src/kernels/movement/gather.ts";
import { unpack } from "../../../src/kernels/movement/unpack.ts";
import type { DeviceOptions } from "../../../src/tensor/open-device.ts";
import { Packed } from "../../../src/tensor/packed/packed.ts";
import { formatKey } from "../../../src/tensor/packed/packed-format.ts";
import { expectClose, randomArray } from "../../helpers/compare.ts";
import { testDevice } from "../../helpers/device.ts";
import { allFormats, randomPacked } from "../../helpers/packed.ts";

type Sizes = readonly [rows: number, width: number, columns: number];

/** Each format and size is a kernel of its own: all formats in one size, and a few in the others. */
interface Style {
  readonly name: string;
  readonly options: DeviceOptions;
  readonly sizes: readonly { readonly of: RegExp; readonly size: Sizes }[];
}
const styles: readonly Style[] = [
  {
    name: "register",
    options: { kernels: "register" },
    sizes: [
      { of: /./, size: [1, 256, 12] },
      // Few rows have a kernel of their own, where groups may run on from row to row or a row may end within one.
      { of: /int8|nf4.*nested|affine|q8_0|q4_0/, size: [3, 288, 37] },
      { of: /int4|q4_k|q8_0/, size: [2, 96, 5] },
      { of: /nested|zero|q6_k/, size: [5, 7, 9] },
    ],
  },
  {
    name: "workgroup",
    options: { kernels: "workgroup" },
    sizes: [
      { of: /./, size: [2, 256, 13] },
      { of: /q6_k/, size: [9, 64, 21] },
      { of: /nested|zero/, size: [9, 7, 21] },
    ],
  },
  {
    name: "workgroup without subgroups",
    options: { kernels: "workgroup", without: ["subgroups"] },
    sizes: [{ of: /nf4.*nested/, size: [2, 256, 13] }],
  },
  {
    name: "register in windows",
    options: { kernels: "register", maxBindingBytes: 2048 },
    sizes: [{ of: /q6_k/, size: [1, 256, 33] }],
  },
];
const keyed = (width: number) => allFormats(width).map((format) => [formatKey(format), format] as const);
/** A rounding of codes times scales, whose sum with an offset may be much smaller than they are. */
const ROUNDING = 2 ** -20;

/** x [rows, K] @ w^T in f64, and what rounding errors are relative to. */
function product(x: ArrayLike<number>, w: ArrayLike<number>, [rows, depth, columns]: number[]) {
  const sums = new Float64Array(rows! * columns!);
  const bounds = new Float64Array(rows! * columns!);
  for (let i = 0; i < rows!; i++) {
    for (let j = 0; j < columns!; j++) {
      for (let k = 0; k < depth!; k++) {
        const term = x[i * depth! + k]! * w[j * depth! + k]!;
        sums[i * columns! + j]! += term;
        bounds[i * columns! + j]! +=
          (depth! + 1) * 2 ** -24 * Math.abs(term) + ROUNDING * Math.abs(x[i * depth! + k]!);
      }
    }
  }
  return { sums, bounds };
}

function expectWithin(found: ArrayLike<number>, { sums, bounds }: ReturnType<typeof product>, label: string) {
  expect(found.length, label).toBe(sums.length);
  for (let i = 0; i < sums.length; i++) {
    const error = Math.abs(found[i]! - sums[i]!);
    if (!(error <= bounds[i]!))
      expect.fail(`${label} element ${i}: ${found[i]}, expected ${sums[i]} ± ${bounds[i]}`);
  }
}

describe.each(styles)("packed matrices, $name kernels", ({ options, sizes }) => {
  const has = (key: string) => sizes.some(({ of }) => of.test(key));
  const formats = keyed(256).flatMap(([key], i) => (has(key) ? [[key, i] as const] : []));

  it.each(formats)("%s: products are those of its numbers", async (key, i) => {
    const device = await testDevice(options);
    for (const { of, size } of sizes) {
      if (!of.test(key)) continue;
      const [rows, width, columns] = size;
      const scope = device.openScope();
      try {
        const { packed, values } = scope.enter(() =>
          randomPacked(device, allFormats(width)[i]!, [columns, width], rows),
        );
        const { x, out, dy, back } = scope.enter(() => {
          const x = device.tensor(randomArray(rows * width, 2), { shape: [rows, width] });
          const dy = device.tensor(randomArray(rows * columns, 3), { shape: [rows, columns] });
          return { x, out: linear(x, packed), dy, back: linear(dy, packed.transpose()) };
        });
        const [xs, outs, dys, backs] = await device.read([x, out, dy, back]);
        const label = `${key} ${rows}·${width}·${columns}`;
        expectWithin(outs!, product(xs!, values, [rows, width, columns]), label);
        const turned = values.map((_, at) => values[(at % columns) * width + Math.floor(at / columns)]!);
        expectWithin(backs!, product(dys!, turned, [rows, columns, width]), `${label} transposed`);
      } finally {
        scope.dispose();
      }
    }
  });

  it("views of rows, gathered rows and all of them are the same numbers", async () => {
    const device = await testDevice(options);
    for (const width of [7, 256]) {
      for (const [key, format] of keyed(width).filter(([key]) => has(key))) {
        const { packed, values } = randomPacked(device, format, [9, width], 5);
        const rows = packed.rows(3, 8);
        const ids = device.tensor(Uint32Array.from([4, 0, 4, 9]), { dtype: "u32" });
        const tensors = [unpack(packed), unpack(rows.transpose()), gatherRows(rows, ids)];
        const [all, turned, gathered] = await device.read(tensors);
        const close = { atol: 2e-6, rtol: 1e-6, label: `${key} ${width}` };
        expectClose(all!, values, close);
        const row = (i: number) => values.subarray(i * width, (i + 1) * width);
        expectClose(
          turned!,
          Float32Array.from({ length: 5 * width }, (_, i) => row(3 + (i % 5))[Math.floor(i / 5)]!),
          close,
        );
        const picked = [...row(7), ...row(3), ...row(7), ...new Array<number>(width).fill(Number.NaN)];
        expectClose(gathered!, picked, close);
        for (const tensor of [...tensors, ids]) tensor.dispose();
        rows.dispose();
        packed.dispose();
      }
    }
  });
});

describe("packed matrices", () => {
  it("refuse parts that are too small, rows that are not there, and shapes that do not fit", async () => {
    const device = await testDevice();
    const [format] = allFormats(64);
    const { packed } = randomPacked(device, format!, [4, 64], 1);
    const layout = { ...packed.layout, shape: [5, 64] as const };
    expect(() => new Packed(layout, packed.parts)).toThrow(ShapeError);
    expect(() => packed.rows(2, 5)).toThrow("rows: 2..5 does not lie in [4, 64]");
    expect(() => linear(device.zeros([1, 63]), packed)).toThrow("found [1, 63] and [4, 64]");
  });

  it("give their memory back", async () => {
    const device = await testDevice();
    const before = device.memory.liveBytes;
    const { packed } = randomPacked(device, allFormats(64)[0]!, [4, 64], 1);
    packed.rows(1, 2).dispose();
    unpack(packed).dispose();
    packed.dispose();
    expect(device.memory.liveBytes).toBe(before);
  });
});
