import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { DTypeError, ShapeError } from "../../../src/errors.ts";
import {
  type ActivationKind,
  activation,
  gatedActivation,
} from "../../../src/kernels/elementwise/activation.ts";
import { expectClose, randomArray } from "../../helpers/compare.ts";
import { testDevice } from "../../helpers/device.ts";

/** The error function in f64: its power series near 0, a continued fraction of erfc further out. */
function erf(x: number): number {
  const z = Math.abs(x);
  if (z < 3) {
    let term = x;
    let sum = x;
    for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum); n++) {
      term *= -(x * x) / n;
      sum += term / (2 * n + 1);
    }
    return (2 / Math.sqrt(Math.PI)) * sum;
  }
  let fraction = 0;
  for (let k = 60; k > 0; k--) fraction = k / 2 / (z + fraction);
  return Math.sign(x) * (1 - Math.exp(-z * z) / (z + fraction) / Math.sqrt(Math.PI));
}

const reference: Record<ActivationKind, (x: number) => number> = {
  silu: (x) => x / (1 + Math.exp(-x)),
  gelu: (x) => 0.5 * x * (1 + erf(x / Math.SQRT2)),
  gelu_tanh: (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  quick_gelu: (x) => x / (1 + Math.exp(-1.702 * x)),
  relu: (x) => Math.max(x, 0),
  relu2: (x) => Math.max(x, 0) ** 2,
};
const kinds = Object.keys(reference) as ActivationKind[];

const grid = Float32Array.from({ length: 24_001 }, (_, i) => (i - 12_000) / 800); // -15 to 15

describe.each(kinds)("%s", (kind) => {
  it("is within 3e-7 of f64 around 0", async () => {
    const device = await testDevice();
    const [actual] = await device.read([device.scope(() => activation(device.tensor(grid), kind))]);
    expectClose(actual, Array.from(grid, reference[kind]), { atol: 3e-7, rtol: 6e-7 });
  });

  it("is 0 or x far out, without overflow", async () => {
    const device = await testDevice();
    const x = [100, 1e4, 1e10, -100, -1e4, -1e10, -1e30, -3e38, Number.POSITIVE_INFINITY, 0];
    const [actual] = await device.read([device.scope(() => activation(device.tensor(x), kind))]);
    const expected = x.map((v) => (v > 0 ? (kind === "relu2" ? v * v : v) : 0));
    expectClose(actual, expected, { atol: 1e-30, rtol: 1e-6 });
  });

  it("keeps NaN", async () => {
    const device = await testDevice();
    const [actual] = await device.read([
      device.scope(() => activation(device.tensor([Number.NaN, 1]), kind)),
    ]);
    expect(actual[0]).toBeNaN();
    expect(actual[1]).not.toBeNaN();
  });

  it("gates: act(gate) * up, for any shape and float dtype, and for views", async () => {
    const device = await testDevice();
    const shapes = fc.record({
      rows: fc.integer({ min: 0, max: 9 }),
      width: fc.integer({ min: 1, max: 41 }),
      dtype: fc.constantFrom("f32" as const, "f16" as const, "bf16" as const),
      skipped: fc.integer({ min: 0, max: 5 }),
    });
    await fc.assert(
      fc.asyncProperty(shapes, async ({ rows, width, dtype, skipped }) => {
        const shape = [rows, width + skipped];
        const count = rows * (width + skipped);
        const both = device.scope(() => {
          const gate = device.tensor(randomArray(count, 1, 4), { shape, dtype }).slice(1, skipped);
          const up = device.tensor(randomArray(count, 2), { shape }).slice(1, 0, width);
          return { gate, up, out: gatedActivation(gate, up, kind) };
        });
        const [gate, up, out] = await device.read([both.gate, both.up, both.out]);
        expectClose(
          out,
          Array.from(gate, (g, i) => reference[kind](g) * up[i]!),
          { atol: 1e-6, rtol: 1e-6 },
        );
      }),
      { numRuns: 6, seed: 3 },
    );
  });
});

describe("activation arguments", () => {
  it("rejects integers and shapes that differ", async () => {
    const device = await testDevice();
    const x = device.zeros([2, 3]);
    expect(() => activation(device.zeros([2], "i32"), "relu")).toThrow(DTypeError);
    expect(() => gatedActivation(x, device.zeros([2, 3], "u32"), "relu")).toThrow(DTypeError);
    expect(() => gatedActivation(x, device.zeros([3]), "silu")).toThrow(ShapeError);
  });

  it("covers more elements than one dispatch dimension has workgroups for", async () => {
    const device = await testDevice();
    const n = 65_536 * 64 * 4 + 5;
    const tail = device.scope(() => {
      const x = device.tensor(new Float32Array(n).fill(-2).fill(3, n - 1));
      return activation(x, "relu2").slice(0, n - 3);
    });
    expect(Array.from(await tail.read())).toEqual([0, 0, 9]);
  });
});
