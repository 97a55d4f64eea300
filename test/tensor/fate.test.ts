import { describe, expect, test } from "vitest";
import { DeviceError, OutOfMemoryError } from "../../src/errors.ts";
import { add, mul } from "../../src/kernels/elementwise/elementwise.ts";
import { defineKernel } from "../../src/tensor/kernel.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { testDevice } from "../helpers/device.ts";
import { shortDevice } from "../helpers/short-device.ts";

// What WebGPU reports late belongs to the results that it spoilt, and to no others.

const brokenKernel = defineKernel({
  name: "broken",
  bindings: { x: "read", out: "write" },
  params: { n: "u32" },
  code: () => "@compute @workgroup_size(1) fn main() { nonsense }",
});

/** A tensor that nothing will ever be written to, because the kernel cannot be compiled. */
function spoilt(x: Tensor, n = 1): Tensor {
  const out = x.device.zeros(x.shape);
  brokenKernel.launch({ tensors: { x, out }, params: { n }, constants: {}, workgroups: 1 });
  return out;
}

describe("an error belongs to", () => {
  test("the reads of what it spoilt, however many there are, and to no other read", async () => {
    const device = await testDevice();
    const x = device.tensor([1, 2]);
    const good = add(x, 1);
    device.recorder.flush();
    const bad = spoilt(x);
    device.recorder.flush();
    const alsoGood = mul(x, 3);
    const results = await Promise.allSettled([good, bad, alsoGood, bad].map((t) => t.read()));
    expect(results.map(({ status }) => status)).toEqual(["fulfilled", "rejected", "fulfilled", "rejected"]);
    expect(results[0]).toMatchObject({ value: new Float32Array([2, 3]) });
    expect(results[2]).toMatchObject({ value: new Float32Array([3, 6]) });
    for (const i of [1, 3]) expect(String((results[i] as PromiseRejectedResult).reason)).toMatch(/nonsense/);
    await device.sync(); // it has been told
  });

  test("what is made from spoilt results, then and later", async () => {
    const device = await testDevice();
    const x = device.tensor([1, 2]);
    const bad = spoilt(x);
    device.recorder.flush();
    const after = add(bad, 1);
    await expect(after.read()).rejects.toThrow(/nonsense/);
    // Everything is known by now; what is computed from then on is no better.
    await expect(mul(add(bad, 1), x).read()).rejects.toThrow(/nonsense/);
    await expect(bad.read()).rejects.toThrow(/nonsense/);
    expect([...(await add(x, x).read())]).toEqual([2, 4]);
  });

  test("nobody that reads a buffer which a spoilt tensor had before", async () => {
    const device = await testDevice();
    const x = device.tensor(new Float32Array(1001));
    const bad = spoilt(x);
    const { id } = bad.storage;
    await expect(bad.read()).rejects.toThrow(/nonsense/);
    bad.dispose();
    const again = device.zeros([1001]);
    expect(again.storage.id).toBe(id);
    expect((await again.read()).length).toBe(1001);
  });

  test("sync, once, where nobody read", async () => {
    const device = await testDevice();
    spoilt(device.tensor([1]));
    await expect(device.sync()).rejects.toThrow(/compiling a kernel/);
    await device.sync();
  });

  test("sync, where it came of other code", async () => {
    const device = await testDevice();
    device.gpu.createBuffer({ size: 16, usage: 0x01 | 0x80 }); // MAP_READ and STORAGE do not go together
    await new Promise((resolve) => setTimeout(resolve, 50));
    await expect(device.sync()).rejects.toThrow(/outside of any operation/);
  });
});

test("error scopes of other code on the same GPUDevice stay in order", async () => {
  const device = await testDevice();
  const x = device.tensor([1]);
  const y = add(x, 1);
  device.gpu.pushErrorScope("validation");
  const z = spoilt(y);
  const theirs = await device.gpu.popErrorScope();
  expect(theirs).toBeNull();
  await expect(z.read()).rejects.toThrow(/nonsense/);
  expect(await add(x, 5).item()).toBe(6);
});

test("a kernel's parameter that is no 32-bit number is refused", async () => {
  const device = await testDevice();
  const kernel = defineKernel({
    name: "counting",
    bindings: { out: "write" },
    params: { n: "u32", shift: "i32" },
    code: () => "@compute @workgroup_size(1) fn main() { out_set(0u, f32(i32(params.n) + params.shift)); }",
  });
  const out = device.zeros([1]);
  const launch = (params: { n: number; shift: number }) =>
    kernel.launch({ tensors: { out }, params, constants: {}, workgroups: 1 });
  for (const n of [0.5, -1, 2 ** 32, Number.NaN]) {
    expect(() => launch({ n, shift: 0 })).toThrow(`counting: expected parameter n to be a u32, found ${n}`);
  }
  expect(() => launch({ n: 0, shift: -(2 ** 31) - 1 })).toThrow(/expected parameter shift to be an i32/);
  launch({ n: 5, shift: -7 });
  expect(await out.item()).toBe(-2);
});

describe("memory that runs out", () => {
  test("frees what is idle, leaves no invalid buffer behind, and is told to whom it concerns", async () => {
    const { device, short, failures } = await shortDevice();
    const x = device.tensor(new Float32Array(3000).fill(1));
    device.zeros([40_000]).dispose();
    const other = add(x, 1);
    await device.sync();
    expect(device.memory.freeBuffers).toBeGreaterThan(0);

    short.of = ({ size, label }) => size > 100_000 && label !== "read";
    const big = device.zeros([50_000]);
    const bigger = add(big, 1);
    const results = await Promise.allSettled([bigger.read(), other.read()]);
    expect(results.map(({ status }) => status)).toEqual(["rejected", "fulfilled"]);
    const { reason } = results[0] as PromiseRejectedResult;
    expect(reason).toBeInstanceOf(OutOfMemoryError);
    expect(String(reason)).toMatch(/allocating \d+ bytes for zeros: out of memory/);
    expect(failures()).toBe(2);
    expect(device.memory.freeBuffers).toBe(0);

    big.dispose();
    bigger.dispose();
    short.of = () => false;
    const again = add(device.zeros([50_000]), 1); // not the invalid buffers of that size
    expect((await again.read())[49_999]).toBe(1);
    await device.destroy();
  });

  test("of a write to it as well", async () => {
    const { device, short } = await shortDevice();
    short.of = () => true;
    const x = device.tensor([1, 2, 3]);
    short.of = () => false;
    await expect(x.read()).rejects.toThrow(OutOfMemoryError);
    await device.sync().catch((error) => expect(error).toBeInstanceOf(DeviceError));
    expect(await device.tensor([4]).item()).toBe(4);
    await device.destroy();
  });
});

describe("the pool", () => {
  test("gives back what has been idle for long", async () => {
    const device = await testDevice();
    device.trim();
    for (let i = 1; i <= 30; i++) device.zeros([1000 * i]).dispose();
    await device.sync();
    const { freeBytes } = device.memory;
    const x = device.tensor([0]);
    for (let i = 0; i < 6000; i++) {
      add(x, 1).dispose();
      device.recorder.flush();
      if (i % 500 === 0) await device.sync();
    }
    await device.sync();
    expect(device.memory.freeBytes).toBeLessThan(freeBytes / 100);
  });

  test("keeps no more idle than is in use, above 128 MiB, when it grows", async () => {
    const device = await testDevice();
    device.trim();
    for (let i = 8; i < 30; i++) {
      device.zeros([i * 2 ** 20]).dispose(); // up to 120 MB each, all of different sizes
      device.recorder.flush();
    }
    await device.sync();
    expect(device.memory.freeBytes).toBeLessThan(2 ** 28);
    device.trim();
  });
});
