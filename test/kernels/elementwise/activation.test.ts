import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { DTypeError, ShapeError } from "../../../src/errors.ts";
import { activation, gatedActivation } from "../../../src/kernels/elementwise/activation.ts";
import { ACTIVATION_KINDS, ACTIVATION_REFERENCE } from "../../helpers/activations.ts";
import { expectClose, randomArray } from "../../helpers/compare.ts";
import { testDevice } from "../../helpers/device.ts";

const grid = Float32Array.from({ length: 24_001 }, (_, i) => (i - 12_000) / 800); // -15 to 15

describe.each(ACTIVATION_KINDS)("%s", (kind) => {
  it("is within 3e-7 of f64 around 0", async () => {
    const device = await testDevice();
    const [actual] = await device.read([device.scope(() => activation(device.tensor(grid), kind))]);
    expectClose(actual, Array.from(grid, ACTIVATION_REFERENCE[kind]), { atol: 3e-7, rtol: 6e-7 });
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
          Array.from(gate, (g, i) => ACTIVATION_REFERENCE[kind](g) * up[i]!),
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
