import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { DTypeError, ShapeError } from "../../../src/errors.ts";
import {
  argmax,
  argmaxWithValues,
  argmin,
  max,
  mean,
  min,
  norm,
  product,
  sum,
  variance,
} from "../../../src/kernels/reduction/reduce.ts";
import { type Shape, sizeOf } from "../../../src/tensor/shape.ts";
import { expectClose, randomArray } from "../../helpers/compare.ts";
import { testDevice } from "../../helpers/device.ts";
import { viewOf } from "../../helpers/views.ts";

const REDUCTIONS = { sum, product, mean, max, min, argmax, argmin };
type Name = keyof typeof REDUCTIONS;

const best = (values: readonly number[], better: (a: number, b: number) => boolean) =>
  values.reduce(
    (at, v, i) => (Number.isNaN(values[at]) || !(Number.isNaN(v) || better(v, values[at]!)) ? at : i),
    0,
  );

const REFERENCE: Record<Name, (values: readonly number[]) => number> = {
  sum: (values) => values.reduce((a, b) => a + b, 0),
  product: (values) => values.reduce((a, b) => a * b, 1),
  mean: (values) => values.reduce((a, b) => a + b, 0) / values.length,
  max: (values) => values.reduce((a, b) => Math.max(a, b)),
  min: (values) => values.reduce((a, b) => Math.min(a, b)),
  argmax: (values) => best(values, (a, b) => a > b),
  argmin: (values) => best(values, (a, b) => a < b),
};

/** Reduces a row-major array along sorted axes in f64. */
function reference(name: Name, values: ArrayLike<number>, shape: Shape, axes: readonly number[]): number[] {
  const groups = new Map<number, number[]>();
  for (let flat = 0; flat < sizeOf(shape); flat++) {
    let rest = flat;
    let slot = 0;
    let step = 1;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      if (!axes.includes(axis)) {
        slot += (rest % shape[axis]!) * step;
        step *= shape[axis]!;
      }
      rest = Math.floor(rest / shape[axis]!);
    }
    if (!groups.has(slot)) groups.set(slot, []);
    groups.get(slot)!.push(values[flat]!);
  }
  return [...groups.entries()].sort(([a], [b]) => a - b).map(([, group]) => REFERENCE[name](group));
}

const STYLES = [["register"], ["workgroup"]] as const;

describe.each(STYLES)("reductions (%s)", (kernels) => {
  it("agree with f64 over any axes and layout", async () => {
    const device = await testDevice({ kernels });
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom<Name>("sum", "mean", "max", "min", "argmax", "argmin"),
        fc.array(fc.constantFrom(1, 2, 3, 5, 8, 13, 70), { minLength: 1, maxLength: 3 }),
        fc.array(fc.boolean(), { minLength: 3, maxLength: 3 }),
        fc.constantFrom("f32", "f16", "bf16"),
        fc.boolean(),
        fc.nat(10_000),
        async (name, shape, chosen, dtype, keepDims, seed) => {
          const axes = shape.map((_, i) => i).filter((i) => chosen[i]);
          if (name.startsWith("arg") && axes.length !== 1) axes.splice(0, 9, ...shape.keys());
          const x = viewOf(device, shape, dtype, seed);
          const argument = name.startsWith("arg") && axes.length > 1 ? undefined : axes;
          const out =
            name === "argmax" || name === "argmin"
              ? REDUCTIONS[name](x, argument?.[0], { keepDims })
              : REDUCTIONS[name](x, axes, { keepDims });
          const [values, found] = await device.read([x, out]);
          const kept = keepDims
            ? shape.map((n, i) => (axes.includes(i) ? 1 : n))
            : shape.filter((_, i) => !axes.includes(i));
          expect(out.shape).toEqual(kept);
          const expected = reference(name, values, shape, axes);
          expectClose(found, expected, { atol: 1e-4, rtol: 1e-5, label: name });
        },
      ),
      { numRuns: 60 },
    );
  });

  it("split a long reduction into passes", async () => {
    const device = await testDevice({ kernels });
    for (const n of [1023, 1025, 8193, 100_003]) {
      const values = randomArray(2 * n, n).map((v) => v + 0.1);
      const x = device.tensor(values, { shape: [2, n] });
      for (const name of ["sum", "mean", "max", "min", "argmax", "argmin"] as const) {
        const expected = reference(name, values, [2, n], [1]);
        expectClose(await REDUCTIONS[name](x, 1).read(), expected, {
          atol: 1e-5,
          rtol: 1e-6,
          label: `${name} of ${n}`,
        });
      }
      // The same numbers along the first axis, and all of them at once.
      expectClose(await sum(x.transpose(), 0).read(), reference("sum", values, [2, n], [1]), { rtol: 1e-6 });
      expectClose(await sum(x).read(), reference("sum", values, [2, n], [0, 1]), { rtol: 1e-6 });
    }
  });

  it("multiply", async () => {
    const device = await testDevice({ kernels });
    const values = randomArray(5000, 4, 1e-3).map((v) => 1 + v);
    expectClose(await product(device.tensor(values)).read(), [REFERENCE.product([...values])], {
      rtol: 1e-4,
    });
  });

  it("take the first of equals, and NaN before all", async () => {
    const device = await testDevice({ kernels });
    const n = 3000;
    const rows = [
      new Float32Array(n).fill(5),
      Float32Array.from({ length: n }, (_, i) => (i % 1000 === 999 ? 1 : 0)),
      Float32Array.from({ length: n }, (_, i) => (i === 2222 || i === 1111 ? Number.NaN : i)),
      Float32Array.from({ length: n }, (_, i) => (i === 7 ? 0 : -0)),
      Float32Array.from({ length: n }, (_, i) =>
        i < 2 ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY,
      ),
    ];
    const x = device.tensor(
      rows.flatMap((row) => [...row]),
      { shape: [rows.length, n] },
    );
    const [greatest, least, top, bottom] = await device.read([
      argmax(x, -1),
      argmin(x, -1),
      max(x, -1),
      min(x, -1),
    ]);
    expect([...greatest]).toEqual([0, 999, 1111, 0, 2]);
    expect([...least]).toEqual([0, 0, 1111, 0, 0]);
    expectClose(top, [5, 1, Number.NaN, 0, Number.POSITIVE_INFINITY]);
    expectClose(bottom, [5, 0, Number.NaN, 0, Number.NEGATIVE_INFINITY]);
  });

  it("reduce more rows than one dispatch dimension holds", async () => {
    const device = await testDevice({ kernels });
    const rows = 65_536 * 2 + 3;
    const x = device.tensor(
      Uint32Array.from({ length: rows * 65 }, (_, i) => (i % 65 === 64 ? i : 0)),
      { shape: [rows, 65] },
    );
    const found = await sum(x, 1).read();
    expect(found.findIndex((v, row) => v !== row * 65 + 64)).toBe(-1);
    device.trim();
  });
});

describe("reductions", () => {
  it("keep integer dtypes and wrap", async () => {
    const device = await testDevice();
    const i = device.tensor(Int32Array.of(2 ** 31 - 1, 1, -5), { shape: [1, 3] });
    const [a, b, c] = await device.read([sum(i, 1), min(i), argmin(i)]);
    expect([a, b, c]).toEqual([Int32Array.of(2 ** 31 - 5), Int32Array.of(-5), Uint32Array.of(2)]);
    const u = device.tensor(Uint32Array.of(2 ** 31, 2 ** 31, 7));
    expect(await device.read([sum(u), max(u)])).toEqual([Uint32Array.of(7), Uint32Array.of(2 ** 31)]);
    expect(await argmax(u).item()).toBe(0);
    expect(() => mean(i)).toThrow(DTypeError);
  });

  it("carry infinity and NaN through sums", async () => {
    const device = await testDevice();
    const { POSITIVE_INFINITY, NEGATIVE_INFINITY, NaN: nan } = Number;
    const x = device.tensor([POSITIVE_INFINITY, 1, POSITIVE_INFINITY, NEGATIVE_INFINITY, nan, 1], {
      shape: [3, 2],
    });
    expectClose(await sum(x, 1).read(), [POSITIVE_INFINITY, nan, nan]);
    expectClose(await mean(x, 1).read(), [POSITIVE_INFINITY, nan, nan]);
  });

  it("give variance and length as f64 does", async () => {
    const device = await testDevice();
    const values = randomArray(3 * 700, 8, 3).map((v) => v + 100);
    const x = device.tensor(values, { shape: [3, 700] });
    const rows = [0, 1, 2].map((r) => [...values.subarray(r * 700, (r + 1) * 700)]);
    const spread = (row: number[], correction: number) => {
      const centre = REFERENCE.mean(row);
      return row.reduce((total, v) => total + (v - centre) ** 2, 0) / (row.length - correction);
    };
    expectClose(
      await variance(x, 1).read(),
      rows.map((row) => spread(row, 0)),
      { rtol: 1e-5 },
    );
    expectClose(
      await variance(x, -1, { correction: 1 }).read(),
      rows.map((row) => spread(row, 1)),
      { rtol: 1e-5 },
    );
    expectClose(
      await norm(x, 1).read(),
      rows.map((row) => Math.hypot(...row)),
      { rtol: 1e-5 },
    );
    expect(norm(x, 1, { keepDims: true }).shape).toEqual([3, 1]);
    expect(variance(x).shape).toEqual([]);
  });

  it("know what to do with no elements", async () => {
    const device = await testDevice();
    const x = device.zeros([3, 0]);
    expect([...(await sum(x, 1).read()), ...(await product(x, 1).read())]).toEqual([0, 0, 0, 1, 1, 1]);
    expect(max(x, 0).shape).toEqual([0]);
    expect(() => max(x, 1)).toThrow(ShapeError);
    expect(() => argmax(x)).toThrow(/argmax: no elements/);
    expect(() => mean(x, 1)).toThrow(ShapeError);
  });

  it("refuse axes that do not exist or come twice", async () => {
    const device = await testDevice();
    const x = device.zeros([2, 3]);
    expect(() => sum(x, 2)).toThrow(ShapeError);
    expect(() => sum(x, [1, -1])).toThrow(/sum: an axis is named twice/);
    expect(await sum(device.tensor(7)).item()).toBe(7);
  });

  it("read a tensor over the binding limit in windows", async () => {
    const device = await testDevice({ maxBindingBytes: 4096 });
    const values = randomArray(5 * 1500, 6);
    const x = device.tensor(values, { shape: [5, 1500] });
    expectClose(await sum(x, 1).read(), reference("sum", values, [5, 1500], [1]), { atol: 1e-4 });
    expect([...(await argmax(x, 1).read())]).toEqual(reference("argmax", values, [5, 1500], [1]));
  });
});

describe.each(["register", "workgroup"] as const)("argmaxWithValues, %s kernels", (kernels) => {
  it.each([
    [3, 7],
    [2, 9000],
    [1, 300_000],
  ])("gives what argmax gives and the element there, [%i, %i]", async (rows, n) => {
    const device = await testDevice({ kernels });
    const values = randomArray(rows * n, n);
    values[5] = Number.NaN; // counts as greatest
    for (const dtype of ["f32", "f16"] as const) {
      using x = device.tensor(values, { shape: [rows, n], dtype });
      using pairs = argmaxWithValues(x, -1);
      using ids = argmax(x, -1);
      expect(pairs.shape).toEqual([2, rows]);
      const [both, expected, all] = await device.read([pairs, ids, x]);
      expect([...both!.subarray(0, rows)]).toEqual([...expected!]);
      const found = new Float32Array((both as Uint32Array).slice(rows).buffer);
      expect([...found]).toEqual([...expected!].map((id, row) => all![row * n + id]));
    }
  });

  it("takes floats only, and counts one dispatch for few elements", async () => {
    const device = await testDevice({ kernels });
    using x = device.tensor([3, 1, 2], { shape: [1, 3] });
    const before = device.counters.dispatches;
    using _ = argmaxWithValues(x, 1);
    expect(device.counters.dispatches - before).toBe(1);
    expect(() => argmaxWithValues(device.tensor(Uint32Array.of(1, 2)), 0)).toThrow(
      /expected floats, found u32/,
    );
  });
});
