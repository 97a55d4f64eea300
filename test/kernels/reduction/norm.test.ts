import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { DTypeError, ShapeError } from "../../../src/errors.ts";
import { layerNorm } from "../../../src/kernels/reduction/layer-norm.ts";
import { rmsNorm } from "../../../src/kernels/reduction/rms-norm.ts";
import type { DeviceOptions } from "../../../src/tensor/open-device.ts";
import { expectClose, randomArray } from "../../helpers/compare.ts";
import { testDevice } from "../../helpers/device.ts";

const styles: [string, DeviceOptions][] = [
  ["register", { kernels: "register" }],
  ["workgroup", { kernels: "workgroup" }],
  ["small bindings", { maxBindingBytes: 8192 }],
];

type Numbers = ArrayLike<number>;

function rowsOf(x: Numbers, width: number, row: (values: number[]) => number[]): number[] {
  const values = Array.from(x);
  return Array.from({ length: values.length / width }, (_, r) =>
    row(values.slice(r * width, (r + 1) * width)),
  ).flat();
}

function rmsReference(x: Numbers, weight: Numbers, eps: number, offset: number): number[] {
  return rowsOf(x, weight.length, (row) => {
    const meanSquare = row.reduce((sum, v) => sum + v * v, 0) / row.length;
    return row.map((v, i) => (v / Math.sqrt(meanSquare + eps)) * (offset + weight[i]!));
  });
}

function layerReference(x: Numbers, weight: Numbers, bias: Numbers | undefined, eps: number): number[] {
  return rowsOf(x, weight.length, (row) => {
    const mean = row.reduce((sum, v) => sum + v, 0) / row.length;
    const variance = row.reduce((sum, v) => sum + (v - mean) ** 2, 0) / row.length;
    return row.map((v, i) => ((v - mean) / Math.sqrt(variance + eps)) * weight[i]! + (bias?.[i] ?? 0));
  });
}

describe.each(styles)("norms, %s", (_style, options) => {
  it("agree with f64 for any rows, width, weight dtype and view", async () => {
    const device = await testDevice(options);
    const cases = fc.record({
      rows: fc.integer({ min: 0, max: 20 }),
      width: fc.oneof(fc.integer({ min: 1, max: 70 }), fc.constantFrom(128, 132, 300)),
      dtype: fc.constantFrom("f32" as const, "f16" as const, "bf16" as const),
      skippedRows: fc.integer({ min: 0, max: 2 }),
      skippedColumns: fc.integer({ min: 0, max: 4 }),
      withBias: fc.boolean(),
      scale: fc.constantFrom(1e-3, 1, 1e3),
      seed: fc.integer({ min: 1, max: 1e6 }),
    });
    await fc.assert(
      fc.asyncProperty(cases, async (c) => {
        const { rows, width, dtype, seed } = c;
        const shape = [rows + c.skippedRows, width + c.skippedColumns];
        const results = device.scope(() => {
          const x = device
            .tensor(randomArray(shape[0]! * shape[1]!, seed, c.scale), { shape })
            .slice(0, c.skippedRows)
            .slice(1, 0, width);
          const weight = device.tensor(randomArray(width + 1, seed + 1), { dtype }).slice(0, 1);
          const bias = c.withBias ? device.tensor(randomArray(width, seed + 2), { dtype }) : undefined;
          const rms = rmsNorm(x, weight, { eps: 1e-6, offset: 1 });
          const layer = layerNorm(x, weight, bias, { eps: 1e-5 });
          return { x, weight, bias: bias ?? weight, rms, layer };
        });
        const [x, weight, bias, rms, layer] = await device.read([
          results.x,
          results.weight,
          results.bias,
          results.rms,
          results.layer,
        ]);
        for (const t of Object.values(results)) t.dispose();
        expectClose(rms, rmsReference(x, weight, 1e-6, 1), { label: "rmsNorm" });
        const expected = layerReference(x, weight, c.withBias ? bias : undefined, 1e-5);
        expectClose(layer, expected, { atol: 2e-5, label: "layerNorm" });
      }),
      { numRuns: 25, seed: 11, endOnFailure: true },
    );
  });

  it("layerNorm does not cancel where the mean is large", async () => {
    const device = await testDevice(options);
    const x = Float32Array.from({ length: 64 }, (_, i) => 4096 + (i % 2 ? 0.5 : -0.5));
    const out = device.scope(() => {
      const ones = device.tensor(new Float32Array(64).fill(1));
      return layerNorm(device.tensor(x, { shape: [1, 64] }), ones, undefined, { eps: 1e-5 });
    });
    expectClose(
      await out.read(),
      Array.from(x, (v) => (v - 4096) / Math.sqrt(0.25 + 1e-5)),
    );
  });

  it("NaN and infinity stay in their row", async () => {
    const device = await testDevice(options);
    const x = new Float32Array(3 * 8).fill(1);
    x[2] = Number.NaN;
    x[8 + 5] = Number.POSITIVE_INFINITY;
    const [rms, layer] = await device.read(
      device.scope(() => {
        const ones = device.tensor(new Float32Array(8).fill(1));
        const rows = device.tensor(x, { shape: [3, 8] });
        return [rmsNorm(rows, ones, { eps: 0 }), layerNorm(rows, ones, ones, { eps: 1 })];
      }),
    );
    expect(Array.from(rms!.subarray(0, 8))).toEqual(new Array(8).fill(Number.NaN));
    expect(Array.from(rms!.subarray(8, 16), (v) => v === 0 || Number.isNaN(v))).toEqual(
      new Array(8).fill(true),
    );
    expectClose(rms!.subarray(16), new Array(8).fill(1));
    expect(Array.from(layer!.subarray(0, 16))).toEqual(new Array(16).fill(Number.NaN));
    expectClose(layer!.subarray(16), new Array(8).fill(1));
  });
});

describe.each(styles.slice(0, 2))("rmsNorm of many rows, %s", (style, options) => {
  it("takes more rows than one dispatch dimension has workgroups", async () => {
    const device = await testDevice(options);
    const rows = style === "register" ? 65_536 * 8 + 3 : 65_600;
    const x = new Float32Array(rows * 4).fill(2);
    x.set([3, -3, 3, -3], (rows - 1) * 4);
    const last = device.scope(() => {
      const ones = device.tensor(new Float32Array(4).fill(1));
      return rmsNorm(device.tensor(x, { shape: [rows, 4] }), ones, { eps: 0 }).rows(rows - 2);
    });
    expectClose(await last.read(), [1, 1, 1, 1, 1, -1, 1, -1]);
  });
});

describe("norm arguments", () => {
  it("are checked", async () => {
    const device = await testDevice();
    const x = device.zeros([2, 3]);
    const weight = device.zeros([3]);
    expect(() => rmsNorm(x, device.zeros([2]), { eps: 0 })).toThrow(ShapeError);
    expect(() => rmsNorm(device.zeros([]), weight, { eps: 0 })).toThrow(ShapeError);
    expect(() => rmsNorm(device.zeros([2, 3], "i32"), weight, { eps: 0 })).toThrow(DTypeError);
    expect(() => layerNorm(x, weight, device.zeros([2]), { eps: 0 })).toThrow(ShapeError);
    expect(() => layerNorm(x, device.zeros([3], "u32"), undefined, { eps: 0 })).toThrow(DTypeError);
  });
});
