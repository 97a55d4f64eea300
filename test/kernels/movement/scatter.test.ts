import { describe, expect, it } from "vitest";
import { ShapeError } from "../../../src/errors.ts";
import { scatterPairInto, scatterRowsInto } from "../../../src/kernels/movement/scatter.ts";
import { randomArray } from "../../helpers/compare.ts";
import { testDevice } from "../../helpers/device.ts";

describe("scatterPairInto", () => {
  it("writes two sources to the same rows of their halves, as scatterRowsInto does one", async () => {
    const device = await testDevice();
    const [rows, width] = [5, 6];
    const ids = device.tensor(Uint32Array.of(4, 0, 7), { dtype: "u32" }); // 7 is none of the rows
    const [k, v] = [1, 2].map((seed) => device.tensor(randomArray(3 * width, seed), { shape: [3, width] }));
    const whole = device.zeros([2 * rows, width]);
    scatterPairInto(whole, ids, [k!, v!]);
    const alone = [k!, v!].map((source) => {
      const target = device.zeros([rows, width]);
      scatterRowsInto(target, ids, source);
      return target;
    });
    const [found, ...expected] = await device.read([whole, ...alone]);
    expect([...found!]).toEqual(expected.flatMap((half) => [...half]));
    expect(() => scatterPairInto(device.zeros([9, width]), ids, [k!, v!])).toThrow(ShapeError);
    expect(() => scatterPairInto(whole, ids, [k!, v!.rows(0, 2)])).toThrow(ShapeError);
  });
});
