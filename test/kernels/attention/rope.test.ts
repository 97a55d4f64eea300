import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { DTypeError, ShapeError } from "../../../src/errors.ts";
import { type RopeScaling, rope, ropePair, ropeTable } from "../../../src/kernels/attention/rope.ts";
import { concat } from "../../../src/kernels/movement/concat.ts";
import type { Tensor } from "../../../src/tensor/tensor.ts";
import { expectClose, randomArray } from "../../helpers/compare.ts";
import { testDevice } from "../../helpers/device.ts";

const llama3: RopeScaling = {
  type: "llama3",
  factor: 8,
  lowFreqFactor: 1,
  highFreqFactor: 4,
  originalContext: 8192,
};

const longrope = {
  type: "longrope",
  factors: Array.from({ length: 32 }, (_, i) => 1 + i / 7),
  magnitude: 1.19,
} as const;

/** The angle of dimension i at position 1, by the published formulas, in f64. */
function frequency(i: number, rotaryDim: number, theta: number, scaling?: RopeScaling): number {
  const plain = theta ** (-(2 * i) / rotaryDim);
  if (!scaling) return plain;
  if (scaling.type === "linear") return plain / scaling.factor;
  if (scaling.type === "longrope") return plain / scaling.factors[i]!;
  const { factor, lowFreqFactor, highFreqFactor, originalContext } = scaling;
  const wavelength = (2 * Math.PI) / plain;
  if (wavelength < originalContext / highFreqFactor) return plain;
  if (wavelength > originalContext / lowFreqFactor) return plain / factor;
  const s = (originalContext / wavelength - lowFreqFactor) / (highFreqFactor - lowFreqFactor);
  return plain * ((1 - s) / factor + s);
}

describe("ropeTable", () => {
  it.each([
    ["default", undefined],
    ["linear", { type: "linear", factor: 4 } as const],
    ["llama3", llama3],
    ["longrope", longrope],
  ])("%s: cosines, then sines", (_name, scaling) => {
    const [rotaryDim, theta, length] = [64, 500_000, 40];
    const { cosSin } = ropeTable({ rotaryDim, theta, scaling, length });
    const magnitude = scaling?.type === "longrope" ? scaling.magnitude : 1;
    const expected = Array.from({ length: length * rotaryDim }, (_, n) => {
      const i = n % 32;
      const angle = Math.floor(n / rotaryDim) * frequency(i, rotaryDim, theta, scaling);
      return magnitude * (n % rotaryDim < 32 ? Math.cos(angle) : Math.sin(angle));
    });
    expectClose(cosSin, expected, { atol: 5e-6, rtol: 0 });
  });

  it("rounds angles to f32, as the reference implementation does", () => {
    const { cosSin } = ropeTable({ rotaryDim: 4, theta: 10_000, length: 100_001 });
    const angle = Math.fround(99_999 * Math.fround(0.01));
    expect(cosSin[99_999 * 4 + 1]).toBe(Math.fround(Math.cos(angle)));
    expect(Math.fround(Math.cos(angle))).not.toBe(Math.fround(Math.cos(99_999 * 0.01)));
  });

  it("rejects an odd number of dimensions, and another number of factors", () => {
    expect(() => ropeTable({ rotaryDim: 62, theta: 1e4, scaling: longrope, length: 3 })).toThrow(
      "expected 31",
    );
    expect(() => ropeTable({ rotaryDim: 7, theta: 1e4, length: 3 })).toThrow(ShapeError);
  });
});

describe.each([
  ["whole bindings", {}],
  ["small bindings", { maxBindingBytes: 8192 }],
])("rope, %s", (_name, options) => {
  it("rotates pairs by the angles of their position and passes the rest through", async () => {
    const device = await testDevice(options);
    const cases = fc.record({
      rows: fc.integer({ min: 0, max: 30 }),
      heads: fc.integer({ min: 1, max: 4 }),
      half: fc.oneof(fc.integer({ min: 1, max: 20 }), fc.constantFrom(4, 8, 16)),
      rest: fc.constantFrom(0, 0, 1, 4, 8),
      skipped: fc.constantFrom(0, 1, 4),
      seed: fc.integer({ min: 1, max: 1e6 }),
    });
    await fc.assert(
      fc.asyncProperty(cases, async ({ rows, heads, half, rest, skipped, seed }) => {
        const headDim = 2 * half + rest;
        const width = heads * headDim;
        const values = randomArray(rows * (width + skipped), seed);
        const positions = Uint32Array.from(randomArray(rows, seed + 1), (v) => Math.floor((v + 1) * 20));
        const { cosSin } = ropeTable({ rotaryDim: 2 * half, theta: 100, length: 40 });
        const [x, out] = await device.read(
          device.scope(() => {
            const table = device.tensor(cosSin, { shape: [40, 2 * half] });
            const x = device.tensor(values, { shape: [rows, width + skipped] }).slice(1, skipped);
            return [x, rope(x, device.tensor(positions), table, { headDim })];
          }),
        );
        const expected = Float64Array.from(x!);
        for (let n = 0; n < rows * heads; n++) {
          for (let i = 0; i < half; i++) {
            const angle = positions[Math.floor(n / heads)]! * frequency(i, 2 * half, 100);
            const [a, b] = [x![n * headDim + i]!, x![n * headDim + half + i]!];
            expected[n * headDim + i] = a * Math.cos(angle) - b * Math.sin(angle);
            expected[n * headDim + half + i] = b * Math.cos(angle) + a * Math.sin(angle);
          }
        }
        expectClose(out!, expected, { atol: 5e-6 });
      }),
      { numRuns: 25, seed: 2, endOnFailure: true },
    );
  });
});

describe("rope arguments", () => {
  it.each([4, 8])("a position beyond the table gives NaN (%i dimensions)", async (headDim) => {
    const device = await testDevice();
    const { cosSin } = ropeTable({ rotaryDim: headDim, theta: 10, length: 3 });
    const out = device.scope(() => {
      const x = device.tensor(new Float32Array(2 * headDim).fill(1), { shape: [2, headDim] });
      const table = device.tensor(cosSin, { shape: [3, headDim] });
      return rope(x, device.tensor(Uint32Array.of(2, 3)), table, { headDim });
    });
    expect(Array.from(await out.read(), Number.isNaN)).toEqual([
      ...new Array(headDim).fill(false),
      ...new Array(headDim).fill(true),
    ]);
  });

  it("takes more rows than one dispatch dimension has workgroups for", async () => {
    const device = await testDevice();
    const rows = 65_536 * 64 + 9;
    const { cosSin } = ropeTable({ rotaryDim: 2, theta: 10, length: 2 });
    const last = device.scope(() => {
      const x = device.tensor(new Float32Array(rows * 2).fill(1), { shape: [rows, 2] });
      const positions = device.tensor(new Uint32Array(rows).fill(1));
      return rope(x, positions, device.tensor(cosSin, { shape: [2, 2] }), { headDim: 2 }).rows(rows - 1);
    });
    expectClose(await last.read(), [Math.cos(1) - Math.sin(1), Math.cos(1) + Math.sin(1)]);
  });

  it("are checked", async () => {
    const device = await testDevice();
    const x = device.zeros([3, 8]);
    const positions = device.zeros([3], "u32");
    const table = device.zeros([5, 4]);
    expect(() => rope(x, positions, table, { headDim: 5 })).toThrow(ShapeError);
    expect(() => rope(x, positions, table, { headDim: 2 })).toThrow(ShapeError);
    expect(() => rope(x, device.zeros([2], "u32"), table, { headDim: 4 })).toThrow(ShapeError);
    expect(() => rope(x, device.zeros([3]), table, { headDim: 4 })).toThrow(DTypeError);
    expect(() => rope(x, positions, device.zeros([5, 4], "f16"), { headDim: 4 })).toThrow(DTypeError);
  });
});

describe("ropePair", () => {
  it.each([
    { headDim: 8, rotaryDim: 8, heads: [3, 1] },
    { headDim: 12, rotaryDim: 8, heads: [1, 2] },
    { headDim: 7, rotaryDim: 4, heads: [2, 3] },
  ])("$heads heads of $headDim: the bits of each by itself", async ({ headDim, rotaryDim, heads }) => {
    const device = await testDevice();
    const positions = [3, 0, 9, 3, 6]; // 9 is beyond the table
    const { cosSin } = ropeTable({ rotaryDim, theta: 10, length: 7 });
    const at = device.tensor(Uint32Array.from(positions), { dtype: "u32" });
    const table = device.tensor(cosSin, { shape: [7, rotaryDim] });
    const [x, y] = heads.map((count, i) =>
      device.tensor(randomArray(5 * count * headDim, i), { shape: [5, count * headDim] }),
    ) as [Tensor, Tensor];
    // One after the other in one buffer, and by themselves.
    const joint = concat([x.reshape([x.size]), y.reshape([y.size])]);
    const parts = [
      joint.slice(0, 0, x.size).reshape(x.shape),
      joint.slice(0, x.size, joint.size).reshape(y.shape),
    ] as const;
    for (const pair of [[x, y], parts, [x.transpose().transpose(), parts[1]]] as const) {
      const made = ropePair(pair, at, table, { headDim });
      const expected = [x, y].map((each) => rope(each, at, table, { headDim }));
      const values = await device.read([...made, ...expected]);
      expect(values.slice(0, 2)).toEqual(values.slice(2));
      expect(made.map(({ shape }) => shape)).toEqual([x.shape, y.shape]);
    }
  });

  it("refuses what does not belong together", async () => {
    const device = await testDevice();
    const at = device.tensor(Uint32Array.of(0, 1), { dtype: "u32" });
    const table = device.zeros([7, 8]);
    const x = device.zeros([2, 16]);
    expect(() => ropePair([x, device.zeros([2, 12])], at, table, { headDim: 8 })).toThrow(ShapeError);
    expect(() => ropePair([x, device.zeros([3, 8])], at, table, { headDim: 8 })).toThrow(ShapeError);
    expect(() => ropePair([x, device.zeros([2, 8], "f16")], at, table, { headDim: 8 })).toThrow(DTypeError);
  });
});
