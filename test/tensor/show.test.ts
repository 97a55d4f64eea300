import { inspect } from "node:util";
import { expect, test } from "vitest";
import { LifetimeError } from "../../src/errors.ts";
import { add } from "../../src/kernels/elementwise/elementwise.ts";
import { copyRowsInto } from "../../src/kernels/movement/row-edits.ts";
import { testDevice } from "../helpers/device.ts";

const UNREAD = "(values on the device: await tensor.show())";

test("the console shows dtype, shape and first elements of what came from the host, as they are stored", async () => {
  const device = await testDevice();
  const x = device.tensor([1, 2, 3, 4, 5, 6], { shape: [2, 3] });
  expect(inspect(x)).toBe("Tensor f32 [2, 3]: 1, 2, 3, 4, 5, 6");
  expect(inspect({ x: [x] })).toBe("{ x: [ Tensor f32 [2, 3]: 1, 2, 3, 4, 5, 6 ] }");
  expect(inspect(device.tensor(-3))).toBe("Tensor f32 []: -3");
  expect(inspect(device.tensor(Int32Array.from({ length: 9 }, (_, i) => i)))).toBe(
    "Tensor i32 [9]: 0, 1, 2, 3, 4, 5, 6, 7, …",
  );
  expect(inspect(device.tensor([0.1, Number.NaN, 1e-7, 123456], { dtype: "f16" }))).toBe(
    "Tensor f16 [4]: 0.09998, NaN, 1.192e-7, Infinity",
  );
  expect(inspect(device.tensor(Uint32Array.of(49152, 2 ** 32 - 1)))).toBe(
    "Tensor u32 [2]: 49152, 4294967295",
  );
  expect(inspect(device.tensor([123456.7, 1e30]))).toBe("Tensor f32 [2]: 123500, 1e+30");
  expect(inspect(device.tensor([], { shape: [0, 3] }))).toBe("Tensor f32 [0, 3]");
  expect(inspect(device.zeros([2]))).toBe("Tensor f32 [2]: 0, 0");
  expect(`${x}`).toBe("f32[2, 3]");
});

test("of what was computed it shows them once they have been read", async () => {
  const device = await testDevice();
  const x = device.tensor([1, 2, 3, 4, 5, 6], { shape: [2, 3] });
  const sum = add(x, x);
  expect(inspect(sum)).toBe(`Tensor f32 [2, 3] ${UNREAD}`);
  expect(inspect(x.transpose())).toBe(`Tensor f32 [3, 2] ${UNREAD}`);
  await sum.read();
  expect(inspect(sum)).toBe("Tensor f32 [2, 3]: 2, 4, 6, 8, 10, 12");
});

test("show() reads the first elements and no more, of views too", async () => {
  const device = await testDevice();
  const x = device.tensor(
    Float32Array.from({ length: 60 }, (_, i) => i),
    { shape: [3, 4, 5] },
  );
  const { liveBuffers } = device.memory;
  const view = x.permute([2, 0, 1]).rows(1);
  expect(await view.show()).toBe("Tensor f32 [4, 3, 4]: 1, 6, 11, 16, 21, 26, 31, 36, …");
  expect(inspect(view)).toBe(await view.show());
  expect(await x.at(1).slice(1, 1, 3).show()).toBe("Tensor f32 [4, 2]: 21, 22, 26, 27, 31, 32, 36, 37");
  expect(await x.at(0).at(2).at(3).alias().show()).toBe("Tensor f32 []: 13");
  expect(await device.empty([0], "f32").show()).toBe("Tensor f32 [0]");
  expect(device.memory.liveBuffers).toBe(liveBuffers + 1);

  const { copies } = device.counters;
  await x.show(); // known from the host
  expect(device.counters.copies).toBe(copies);
});

test("elements that were overwritten are no longer shown", async () => {
  const device = await testDevice();
  const x = device.tensor([1, 2, 3, 4], { shape: [2, 2] });
  const written = x.rows(1);
  await written.read();
  expect(inspect(written)).toBe("Tensor f32 [1, 2]: 3, 4");
  device.write(written, new Uint8Array(Float32Array.of(7, 8).buffer));
  expect(inspect(x)).toBe(`Tensor f32 [2, 2] ${UNREAD}`);
  expect(await x.show()).toBe("Tensor f32 [2, 2]: 1, 2, 7, 8");
  copyRowsInto(x, 0, device.zeros([1, 2]));
  expect(inspect(x)).toBe(`Tensor f32 [2, 2] ${UNREAD}`);
  expect(await x.show()).toBe("Tensor f32 [2, 2]: 0, 0, 7, 8");
  // What is overwritten while it is read came before.
  const reading = x.read();
  copyRowsInto(x, 1, device.zeros([1, 2]));
  expect([...(await reading)]).toEqual([0, 0, 7, 8]);
  expect(inspect(x)).toBe(`Tensor f32 [2, 2] ${UNREAD}`);
});

test("what was disposed of says so, and cannot be read", async () => {
  const device = await testDevice();
  const x = device.tensor([1, 2]);
  x.dispose();
  expect(inspect(x)).toBe("Tensor f32 [2] (disposed of)");
  await expect(x.show()).rejects.toThrow(LifetimeError);
});
