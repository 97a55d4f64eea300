import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { LifetimeError, ShapeError } from "../../src/errors.ts";
import { type DType, encode, f16Bits, f16Value } from "../../src/tensor/dtype.ts";
import { sizeOf } from "../../src/tensor/shape.ts";
import { testDevice } from "../helpers/device.ts";

type Nested = number | Nested[];

/** Row-major values as nested arrays, so that views can be checked with plain array operations. */
function nest(values: readonly number[], shape: readonly number[]): Nested {
  if (shape.length === 0) return values[0]!;
  const step = values.length / shape[0]!;
  return Array.from({ length: shape[0]! }, (_, i) =>
    nest(values.slice(i * step, (i + 1) * step), shape.slice(1)),
  );
}

const children = (value: Nested) => value as Nested[];
const flat = (value: Nested): number[] => [value].flat(9) as number[];

describe("creation", () => {
  it("chooses shapes and dtypes from the values", async () => {
    const device = await testDevice();
    const made = [
      device.tensor(3),
      device.tensor([1, 2]),
      device.tensor(Int32Array.of(-1)),
      device.tensor(Uint32Array.of(1, 2), { shape: [2, 1] }),
      device.tensor([0.1], { dtype: "bf16" }),
      device.zeros([2, 3]),
    ];
    expect(made.map(String)).toEqual(["f32[]", "f32[2]", "i32[1]", "u32[2, 1]", "bf16[1]", "f32[2, 3]"]);
    expect(await made[0]!.item()).toBe(3);
    expect(await made[4]!.item()).toBe(0.10009765625);
    expect([...(await made[5]!.read())]).toEqual([0, 0, 0, 0, 0, 0]);
    expect(made[5]!.bytes).toBe(24);
  });

  it("zeros are zero in a buffer that held something else", async () => {
    const device = await testDevice();
    device.scope(() => device.tensor(new Float32Array(64).fill(7)));
    const [zeros] = await device.read([device.zeros([64])]);
    expect(zeros.every((v) => v === 0)).toBe(true);
  });

  it("round-trips every half through write and read", async () => {
    const device = await testDevice();
    const bits = Uint16Array.from({ length: 65_536 }, (_, i) => i);
    const x = device.empty([65_536], "f16");
    device.write(x, new Uint8Array(bits.buffer));
    const values = await x.read();
    for (const i of [0, 1, 0x3ff, 0x400, 0x3c00, 0x7bff, 0x7c00, 0x8000, 0xfbff])
      expect(values[i]).toBe(f16Value(i));
    const back = Array.from(values, f16Bits);
    expect(back.findIndex((b, i) => b !== i && !Number.isNaN(f16Value(i)))).toBe(-1);
  });

  it("refuses values and bytes that do not fit", async () => {
    const device = await testDevice();
    expect(() => device.tensor([1, 2, 3], { shape: [2] })).toThrow(
      new ShapeError("tensor: shape [2] has 2 elements, but 3 values were given"),
    );
    for (const shape of [[-1], [1.5], [1, 1, 1, 1, 1, 1, 1]])
      expect(() => device.zeros(shape)).toThrow(ShapeError);
    const x = device.zeros([4]);
    expect(() => device.write(x, new Uint8Array(20))).toThrow(ShapeError);
    expect(() => device.write(x, new Uint8Array(4), 13)).toThrow(ShapeError);
    expect(() => device.write(x.reshape([2, 2]).transpose(), new Uint8Array(4))).toThrow(/contiguous/);
    await expect(x.item()).rejects.toThrow(ShapeError);
  });
});

describe("views", () => {
  it("slice, permute, index and broadcast like nested arrays", async () => {
    const device = await testDevice();
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 2, maxLength: 4 }),
        fc.constantFrom<DType>("f32", "f16", "bf16", "i32", "u32"),
        fc.nat(1000),
        async (shape, dtype, seed) => {
          const values = Array.from({ length: sizeOf(shape) }, (_, i) => i % 200);
          const x = device.tensor(values, { shape, dtype });
          const nested = nest(values, shape);
          const start = seed % shape[0]!;
          const sliced = x.slice(0, start);
          const swapped = x.permute([1, 0, ...shape.keys()].filter((axis, i) => i < 2 || axis > 1));
          const indexed = x.at(-1 - start);
          const repeated = sliced.broadcastTo([2, ...sliced.shape]);
          const found = await device.read([sliced, swapped, indexed, repeated]);
          const rows = children(nested);
          const columns = children(rows[0]!).map((_, j) => rows.map((row) => children(row)[j]!));
          const tail = flat(rows.slice(start));
          expect(found.map((v) => [...v])).toEqual([
            tail,
            flat(columns),
            flat(rows.at(-1 - start)!),
            [...tail, ...tail],
          ]);
        },
      ),
      { numRuns: 50 },
    );
  });

  it("cost no copy and share lifetimes", async () => {
    const device = await testDevice();
    const before = device.memory.liveBuffers;
    const x = device.tensor([1, 2, 3, 4, 5, 6], { shape: [2, 3] });
    const view = device.scope(() => x.transpose().rows(1, 3));
    x.dispose();
    expect(device.memory.liveBuffers).toBe(before + 1);
    expect([...(await view.read())]).toEqual([2, 5, 3, 6]);
    view.dispose();
    expect(device.memory.liveBuffers).toBe(before);
  });

  it("say what does not fit", async () => {
    const device = await testDevice();
    const x = device.zeros([2, 3]);
    expect(() => x.reshape([4])).toThrow("reshape: [2, 3] has 6 elements, [4] has 4");
    expect(() => x.transpose().reshape([6])).toThrow(/not contiguous .*call contiguous/);
    expect(() => x.permute([0, 0])).toThrow(ShapeError);
    expect(() => x.slice(1, 2, 5)).toThrow("slice: 2..5 does not lie in axis 1 of [2, 3]");
    expect(() => x.slice(2, 0)).toThrow(/axis 2 is out of range/);
    expect(() => x.at(2)).toThrow(ShapeError);
    expect(() => x.broadcastTo([3, 3])).toThrow(ShapeError);
    expect(() => device.zeros([3]).transpose()).toThrow(ShapeError);
    expect(x.slice(1, -2).shape).toEqual([2, 2]);
    expect(x.slice(0, 1, 1).shape).toEqual([0, 3]);
  });

  it("throw after disposal, naming the tensor", async () => {
    const device = await testDevice();
    const x = device.zeros([2, 3]);
    x.dispose();
    x.dispose();
    expect(x.disposed).toBe(true);
    expect(() => x.transpose()).toThrow(LifetimeError);
    expect(() => x.alias()).toThrow(/f32\[2, 3\] was used after it was disposed of/);
    await expect(x.read()).rejects.toThrow(LifetimeError);
  });
});

describe("encode", () => {
  it("pads odd counts of halves to whole words", () => {
    expect([...encode([1, 2, 3], "f16")]).toEqual([0, 0x3c, 0, 0x40, 0, 0x42, 0, 0]);
  });
});
