import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { DTypeError, ShapeError } from "../../../src/errors.ts";
import { logSoftmax, softmax } from "../../../src/kernels/reduction/softmax.ts";
import type { DeviceOptions } from "../../../src/tensor/open-device.ts";
import { expectClose, randomArray } from "../../helpers/compare.ts";
import { testDevice } from "../../helpers/device.ts";

const styles: [string, DeviceOptions][] = [
  ["register", { kernels: "register" }],
  ["workgroup", { kernels: "workgroup" }],
  ["small bindings", { maxBindingBytes: 8192 }],
];

/** Along the middle dimension of [outer, length, inner], in f64. */
function reference(
  x: ArrayLike<number>,
  [outer, length, inner]: readonly [number, number, number],
  log: boolean,
) {
  const out = new Float64Array(outer * length * inner);
  for (let o = 0; o < outer; o++) {
    for (let c = 0; c < inner; c++) {
      const at = (i: number) => (o * length + i) * inner + c;
      const values = Array.from({ length }, (_, i) => x[at(i)]!);
      const highest = Math.max(...values);
      const total = values.reduce((sum, v) => sum + Math.exp(v - highest), 0);
      values.forEach((v, i) => {
        out[at(i)] = log ? v - highest - Math.log(total) : Math.exp(v - highest) / total;
      });
    }
  }
  return out;
}

const { NaN: nan, POSITIVE_INFINITY: infinity, NEGATIVE_INFINITY: minusInfinity } = Number;

describe.each(styles)("softmax, %s", (_style, options) => {
  it("agrees with f64 along any axis, for any dtype and view", async () => {
    const device = await testDevice(options);
    const cases = fc.record({
      dims: fc.tuple(
        fc.integer({ min: 1, max: 6 }),
        fc.oneof(fc.integer({ min: 1, max: 40 }), fc.constantFrom(64, 65, 300)),
        fc.integer({ min: 1, max: 5 }),
      ),
      dtype: fc.constantFrom("f32" as const, "f16" as const, "bf16" as const),
      scale: fc.constantFrom(0.1, 5, 300),
      log: fc.boolean(),
      seed: fc.integer({ min: 1, max: 1e6 }),
    });
    await fc.assert(
      fc.asyncProperty(cases, async ({ dims, dtype, scale, log, seed }) => {
        const [outer, length, inner] = dims;
        const pair = device.scope(() => {
          const shape = [outer, length + 1, inner];
          const values = randomArray(outer * (length + 1) * inner, seed, scale);
          const x = device.tensor(values, { shape, dtype }).slice(1, 1);
          return [x, (log ? logSoftmax : softmax)(x, seed % 2 ? 1 : -2)] as const;
        });
        const [x, out] = await device.read(pair);
        for (const t of pair) t.dispose();
        expectClose(out, reference(x, [outer, length, inner], log), { atol: 1e-6, rtol: 3e-6 });
      }),
      { numRuns: 25, seed: 5, endOnFailure: true },
    );
  });

  it("says 0 where there is nothing to choose from, and NaN for a row with NaN or +infinity", async () => {
    const device = await testDevice(options);
    const rows = [
      [minusInfinity, minusInfinity, minusInfinity],
      [1, nan, 2],
      [1, 2, infinity],
      [nan, minusInfinity, minusInfinity],
      [minusInfinity, 7, minusInfinity],
      [-3e38, 3e38, minusInfinity],
    ];
    const [out, log] = await device.read(
      device.scope(() => {
        const x = device.tensor(rows.flat(), { shape: [6, 3] });
        return [softmax(x), logSoftmax(x)];
      }),
    );
    const none = [nan, nan, nan];
    expect(Array.from(out!)).toEqual([[0, 0, 0], none, none, none, [0, 1, 0], [0, 1, 0]].flat());
    expect(Array.from(log!.subarray(0, 15))).toEqual(
      [rows[0]!, none, none, none, [minusInfinity, 0, minusInfinity]].flat(),
    );
  });
});

describe.each(styles.slice(0, 2))("softmax of long rows, %s", (_style, options) => {
  it("keeps the small terms of long rows", async () => {
    const device = await testDevice(options);
    const x = new Float32Array(50_000).fill(-7.7).fill(0, 0, 1);
    const out = device.scope(() => softmax(device.tensor(x)).slice(0, 0, 1));
    const total = 1 + (x.length - 1) * Math.exp(x[1]!);
    expectClose(await out.read(), [1 / total], { atol: 0, rtol: 1e-5 });
  });
});

describe("softmax arguments", () => {
  it("takes tensors without elements", async () => {
    const device = await testDevice();
    expect((await softmax(device.zeros([0, 3])).read()).length).toBe(0);
    expect((await softmax(device.zeros([3, 0])).read()).length).toBe(0);
  });

  it("takes more rows than one dispatch dimension has workgroups for", async () => {
    const device = await testDevice();
    const rows = 65_536 * 8 + 3;
    const last = device.scope(() => softmax(device.zeros([rows, 2])).rows(rows - 1));
    expect(Array.from(await last.read())).toEqual([0.5, 0.5]);
  });

  it("are checked", async () => {
    const device = await testDevice();
    expect(() => softmax(device.zeros([2, 2]), 2)).toThrow(ShapeError);
    expect(() => logSoftmax(device.zeros([2, 2], "i32"))).toThrow(DTypeError);
  });
});
