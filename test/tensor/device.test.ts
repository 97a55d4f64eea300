import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { describe, expect, it } from "vitest";
import { platform } from "#platform";
import {
  DeviceError,
  DeviceLostError,
  LifetimeError,
  OutOfMemoryError,
  ShapeError,
} from "../../src/errors.ts";
import { add, mul } from "../../src/kernels/elementwise/elementwise.ts";
import { randomUniform } from "../../src/kernels/elementwise/random.ts";
import { copyRowsInto, scaleRows } from "../../src/kernels/movement/row-edits.ts";
import { scatterRowsInto } from "../../src/kernels/movement/scatter.ts";
import { sum } from "../../src/kernels/reduction/reduce.ts";
import type { GPUBindGroupLayout, GPUDevice } from "../../src/platform/global-types.ts";
import { Device } from "../../src/tensor/device.ts";
import { defineKernel } from "../../src/tensor/kernel.ts";
import { openDevice } from "../../src/tensor/open-device.ts";
import type { OperationRecord } from "../../src/tensor/operation.ts";
import { PipelineCache } from "../../src/tensor/pipelines.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { testDevice } from "../helpers/device.ts";

describe("scopes", () => {
  it("dispose of what was made in them, except the result", async () => {
    const device = await testDevice();
    const before = device.memory;
    let lost: Tensor | undefined;
    const kept = device.scope(() => {
      const x = device.tensor([1, 2, 3]);
      lost = add(x, 1);
      const inner = device.scope(() => ({ list: [mul(lost!, 2)], map: new Map([["x", x.alias()]]) }));
      return [inner];
    });
    const { list, map } = kept[0]!;
    expect(lost!.disposed).toBe(true);
    expect(device.memory.liveBuffers).toBe(before.liveBuffers + 2);
    expect([...(await list[0]!.read())]).toEqual([4, 6, 8]);
    for (const tensor of [...list, ...map.values()]) tensor.dispose();
    expect(device.memory.liveBuffers).toBe(before.liveBuffers);
  });

  it("give memory back when the function throws", async () => {
    const device = await testDevice();
    const before = device.memory.liveBuffers;
    expect(() =>
      device.scope(() => {
        device.zeros([10]);
        throw new Error("stop");
      }),
    ).toThrow("stop");
    expect(device.memory.liveBuffers).toBe(before);
    expect(device.currentScope).toBeUndefined();
  });

  it("leave tensors of the enclosing code alone and refuse async functions", async () => {
    const device = await testDevice();
    const x = device.zeros([2]);
    device.scope(() => add(x, 1)).dispose();
    expect(x.disposed).toBe(false);
    expect(() => device.scope(async () => x)).toThrow(LifetimeError);
    const late = async () => {
      const y = add(x, 1);
      await undefined;
      return add(y, 1);
    };
    expect(() => device.scope(late)).toThrow(LifetimeError);
    // What the function runs into then is nobody's to catch, and ends no process.
    await new Promise(setImmediate);
  });

  it("can be left and entered again by interleaved generators", async () => {
    const device = await testDevice();
    const before = device.memory.liveBuffers;
    function* steps(start: number): Generator<Tensor, number> {
      const scope = device.openScope();
      try {
        let x: Tensor = scope.enter(() => device.tensor([start]));
        for (let i = 0; i < 3; i++) {
          x = scope.enter(() => add(x, 1));
          yield x;
        }
        return 3;
      } finally {
        scope.dispose();
      }
    }
    const [a, b] = [steps(0), steps(10)];
    const seen: Tensor[] = [];
    for (let i = 0; i < 2; i++) seen.push(a.next().value as Tensor, b.next().value as Tensor);
    const values = await device.read(seen);
    expect(values.map((v) => v[0])).toEqual([1, 11, 2, 12]);
    a.return(0);
    expect(seen.map((t) => t.disposed)).toEqual([true, false, true, false]);
    b.return(0);
    expect(device.memory.liveBuffers).toBe(before);
  });
});

describe("memory", () => {
  it("stays where it was over 10,000 small runs", async () => {
    const device = await testDevice();
    const x = device.tensor(new Float32Array(600), { shape: [6, 100] });
    const run = () =>
      device.scope(() => {
        scaleRows(add(x, x), [1], 2);
        sum(x.transpose(), 0);
      });
    setFlagsFromString("--expose-gc");
    const collect = runInNewContext("gc") as () => void;
    const state = async () => {
      await device.sync();
      collect();
      const { heapUsed, external } = process.memoryUsage();
      return { ...device.memory, bindGroups: device.counters.bindGroups, host: heapUsed + external };
    };
    const runs = async (count: number) => {
      for (let i = 1; i <= count; i++) {
        run();
        if (i % 500 === 0) await device.sync();
      }
    };
    await runs(1000);
    const { host: hostBefore, ...before } = await state();
    await runs(10_000);
    const { host: hostAfter, ...after } = await state();
    expect(after).toEqual(before);
    expect(hostAfter - hostBefore).toBeLessThan(2 ** 20);
  });

  it("has a peak, whatever has been given back since", async () => {
    const device = await testDevice();
    const kept = device.zeros([1024]);
    device.resetPeak();
    const { liveBytes } = device.memory;
    expect(device.peakBytes).toBe(liveBytes);
    device.zeros([1024]).dispose();
    device.scope(() => void [device.zeros([2048]), device.zeros([1024])]);
    expect([device.peakBytes, device.memory.liveBytes]).toEqual([liveBytes + 3 * 4096, liveBytes]);
    device.zeros([1024]).dispose();
    expect(device.peakBytes).toBe(liveBytes + 3 * 4096);
    kept.dispose();
    device.resetPeak();
    expect(device.peakBytes).toBe(device.memory.liveBytes);
  });

  it("is used again in the same order, whatever order it came back in", async () => {
    const device = await testDevice();
    const run = () =>
      device.scope(() => {
        const x = device.zeros([40]);
        return mul(add(x, x), add(x, 1));
      });
    run().dispose();
    await device.sync();
    const { bindGroups } = device.counters;
    // Leaves the buffers of that size free in another order than it found them.
    const held = Array.from({ length: 6 }, () => device.zeros([40]));
    for (const i of [3, 0, 5, 1, 4, 2]) held[i]!.dispose();
    run().dispose();
    await device.sync();
    expect(device.counters.bindGroups).toBe(bindGroups);
  });

  it("of bind groups is bounded, and what is given up is made again", async () => {
    const device = await testDevice();
    const tensors = Array.from({ length: 130 }, (_, i) => device.tensor([i]));
    for (const a of tensors) for (const b of tensors) add(a, b).dispose();
    const named = tensors.map(({ storage }) => storage.bindGroups.size);
    expect(Math.max(...named)).toBeGreaterThan(100);
    expect(named.reduce((total, n) => total + n, 0)).toBeLessThan(2 * 8192 + 130);
    const sums = tensors.map((a) => add(a, tensors[1]!));
    expect((await device.read(sums)).map(([value]) => value)).toEqual(tensors.map((_, i) => i + 1));
    for (const tensor of [...tensors, ...sums]) tensor.dispose();
  });

  it("of pipelines is bounded, and the ones unused for longest are given up", () => {
    let made = 0;
    const make = () => ({ id: made++ });
    const gpu = {
      createBindGroupLayout: make,
      createPipelineLayout: make,
      createShaderModule: make,
      createComputePipeline: make,
    } as unknown as GPUDevice;
    const cache = new PipelineCache(
      gpu,
      {} as GPUBindGroupLayout,
      (_what, _fate, fn) => fn(),
      () => {},
    );
    const of = (i: number) => cache.pipeline(`kernel ${i}`, "rw", () => "").pipeline;
    const [first, second] = [of(0), of(1)];
    for (let i = 2; i < 5000; i++) {
      of(i);
      expect(of(0)).toBe(first);
    }
    expect(cache.pipelineCount).toBe(2048);
    expect(of(1)).not.toBe(second);
  });

  it("goes back to the driver by trim", async () => {
    const device = await testDevice();
    device.zeros([1000]).dispose();
    expect(device.memory.freeBuffers).toBeGreaterThan(0);
    device.trim();
    expect(device.memory).toMatchObject({ freeBuffers: 0, freeBytes: 0 });
    expect(await add(device.tensor(1), 2).item()).toBe(3);
  });
});

describe("order", () => {
  it("keeps host writes behind the reads recorded before them", async () => {
    const device = await testDevice();
    const x = device.tensor([1, 2]);
    const sum1 = add(x, 0);
    device.write(x, new Uint8Array(Float32Array.of(10, 20).buffer));
    const sum2 = add(x, 0);
    const [a, b] = await device.read([sum1, sum2]);
    expect([...a, ...b]).toEqual([1, 2, 10, 20]);
  });

  it("may reuse a buffer while commands that read it are still queued", async () => {
    const device = await testDevice();
    const results: Tensor[] = [];
    for (let i = 0; i < 300; i++) {
      const x = device.tensor([i, i]); // takes the buffer that the previous round gave back
      results.push(mul(x, 3));
      x.dispose();
    }
    const values = await device.read(results);
    expect(values.map((v) => v[1])).toEqual(results.map((_, i) => 3 * i));
  });

  it("submits in batches", async () => {
    const device = await testDevice();
    await device.sync();
    const before = device.counters;
    device.scope(() => {
      let x: Tensor = device.zeros([4]);
      for (let i = 0; i < 100; i++) x = add(x, 1);
    });
    await device.sync();
    const after = device.counters;
    expect(after.dispatches - before.dispatches).toBe(100);
    expect(after.submits - before.submits).toBeLessThanOrEqual(2);
  });
});

const brokenKernel = defineKernel({
  name: "broken",
  bindings: { x: "read" },
  params: {},
  code: () => "@compute @workgroup_size(1) fn main() { nonsense }",
});

describe("errors", () => {
  it("of validation arrive at the next read, once, with the kernel's message", async () => {
    const device = await testDevice();
    const x = device.tensor([1]);
    brokenKernel.launch({ tensors: { x }, params: {}, constants: {}, workgroups: 1 });
    await expect(device.sync()).rejects.toThrow(/WebGPU reported an error while compiling a kernel/);
    expect(await add(x, 1).item()).toBe(2);
  });

  it("above the largest buffer name the operation and the sizes", async () => {
    const device = await testDevice();
    const before = device.memory.liveBuffers;
    const tooLarge = Math.floor(device.gpu.limits.maxBufferSize / 4) + 1;
    expect(() => device.zeros([tooLarge])).toThrow(OutOfMemoryError);
    expect(() => device.zeros([tooLarge])).toThrow(
      /zeros: needs a buffer of \d+ bytes, but .* largest buffer is \d+/,
    );
    const x = device.zeros([1]).broadcastTo([2, tooLarge]);
    expect(() => add(x, 1)).toThrow(OutOfMemoryError);
    x.dispose();
    expect(device.memory.liveBuffers).toBeLessThanOrEqual(before + 1);
  });

  it("over the binding limit say so where windows run out", async () => {
    const device = await testDevice({ maxBindingBytes: 256 });
    const x = device.zeros([64 * 40]);
    expect(() => add(x, 1)).toThrow(/needs \d+ storage bindings .*split the operation by rows/);
    expect(() => add(x, 1)).toThrow(DeviceError);
    await expect(openDevice({ maxBindingBytes: 10 })).rejects.toThrow(
      /maxBindingBytes: expected .* found 10/,
    );
  });

  it("refuse tensors of two devices and disposed tensors", async () => {
    const [a, b] = [await testDevice(), await testDevice({ maxBindingBytes: 4096 })];
    expect(() => add(a.zeros([1]), b.zeros([1]))).toThrow("binary: the inputs live on different devices");
    const x = a.zeros([1]);
    x.dispose();
    expect(() => add(x, 1)).toThrow(LifetimeError);
    expect(() => add(a.zeros([2]), a.zeros([3]))).toThrow(ShapeError);
  });

  it("leave nothing behind when an operation refuses", async () => {
    const device = await testDevice();
    const x = device.zeros([2, 2], "i32");
    const before = device.memory.liveBuffers;
    expect(() => add(x, 0.5)).toThrow();
    expect(device.memory.liveBuffers).toBe(before);
  });
});

describe("loss", () => {
  it("is reported by everything, and a new device works in the same process", async () => {
    const device = await openDevice();
    const x = device.tensor([1, 2]);
    device.gpu.destroy();
    await expect(add(x, 1).read()).rejects.toThrow(DeviceLostError);
    expect(() => add(x, 1)).toThrow(/the WebGPU device was lost/);
    expect(() => device.zeros([1])).toThrow(DeviceLostError);
    await expect(device.sync()).rejects.toThrow(DeviceLostError);
    await expect(x.read()).rejects.toThrow(DeviceLostError);

    await using fresh = await openDevice();
    expect([...(await add(fresh.tensor([1, 2]), 1).read())]).toEqual([2, 3]);
  });

  it("rejects a read that is under way", async () => {
    const device = await openDevice();
    const reading = add(device.zeros([1000]), 1).read();
    device.gpu.destroy();
    await expect(reading).rejects.toThrow(DeviceLostError);
  });

  it("is what destroy does, after finishing the work; twice is fine", async () => {
    const device = await openDevice();
    add(device.zeros([4]), 1);
    await device.destroy();
    await device.destroy();
    expect(() => device.zeros([1])).toThrow(DeviceLostError);
  });
});

describe("openDevice", () => {
  it("says what it got, and can do without features", async () => {
    const device = await testDevice();
    expect(device.info.features).toEqual([...device.gpu.features].sort());
    expect(device.maxBindingBytes % 256).toBe(0);
    const without = ["shader-f16", "subgroups", "timestamp-query"] as const;
    const plain = await testDevice({ without });
    for (const feature of without) expect(plain.has(feature)).toBe(false);
    expect([...(await add(plain.tensor([1], { dtype: "f16" }), 1).read())]).toEqual([2]);
  });

  it("takes the kernel style that was asked for", async () => {
    for (const kernels of ["register", "workgroup"] as const) {
      expect((await testDevice({ kernels })).info.kernels).toBe(kernels);
    }
  });

  it("wraps a GPUDevice of the caller's, with default limits", async () => {
    const adapter = await platform.requestAdapter({});
    await using device = new Device(await adapter.requestDevice());
    const x = device.tensor([1, 2, 3]);
    expect([...(await add(x, x).read())]).toEqual([2, 4, 6]);
    expect(device.maxBindingBytes).toBe(2 ** 27);
  });
});

describe("records", () => {
  /** What `work` does, as those who observe the device are told. */
  function recordsOf(device: Device, work: () => void): OperationRecord[] {
    const records: OperationRecord[] = [];
    const stop = device.observe((record) => records.push(record));
    try {
      work();
    } finally {
      stop();
    }
    return records;
  }

  const shown = (records: readonly OperationRecord[]) =>
    records.map((r) => [r.operation.name, r.inputs.length, r.attributes]);

  it("describe each operation once, as plain data", async () => {
    const device = await testDevice();
    const records = recordsOf(device, () => {
      const x = device.tensor([3, 2]);
      add(1, mul(x, x));
      sum(x);
    });
    const computed = records.filter(({ operation }) => !operation.memory);
    expect(shown(computed)).toEqual([
      ["binary", 2, { kind: "mul" }],
      ["binary", 1, { kind: "add", a: 1 }],
      ["reduce", 1, { kind: "sum", axes: [0], keepDims: false }],
    ]);
    expect(JSON.parse(JSON.stringify(computed[1]!.attributes))).toEqual({ kind: "add", a: 1 });
  });

  it("are made of whatever makes, views or changes a tensor", async () => {
    const device = await testDevice();
    const records = recordsOf(device, () => {
      const x = device.tensor([1, 2, 3, 4, 5, 6], { shape: [3, 2] });
      const cache = device.zeros([4, 2]);
      copyRowsInto(cache, 1, x.rows(1, 3));
      scatterRowsInto(cache, device.tensor(Uint32Array.of(0)), x.transpose().transpose().slice(0, 0, 1));
      randomUniform(device, [2], { seed: 1 });
      x.reshape([6]).alias();
    });
    const names = records.map(({ operation }) => operation.name);
    expect(names).toEqual([
      ...["empty", "write", "empty", "clear", "view", "copyRowsInto"],
      ...["empty", "write", "view", "view", "view", "scatterRowsInto", "random", "view", "view"],
    ]);
    for (const { operation, inputs, output } of records) {
      const changes = ["write", "clear", "copyRowsInto", "scatterRowsInto"].includes(operation.name);
      expect(output === inputs[0]).toBe(changes);
    }
    expect(records[4]!.attributes).toEqual({ shape: [2, 2], strides: [2, 1], offset: 2 });
  });

  it("go to all who observe, until they stop, and what these do themselves is not told", async () => {
    const device = await testDevice();
    const x = device.tensor([1]);
    const seen: string[] = [];
    const kept: Tensor[] = [];
    const watch = (name: string) =>
      device.observe(({ output }) => {
        seen.push(name);
        kept.push(output.alias(), add(output, 1));
      });
    const [stopFirst, stopSecond] = [watch("first"), watch("second")];
    device.scope(() => void mul(x, 3));
    expect(seen).toEqual(["first", "second"]);
    stopFirst();
    stopFirst();
    device.scope(() => void mul(x, 3));
    expect(seen).toEqual(["first", "second", "second"]);
    stopSecond();
    mul(x, 3);
    expect(seen.length).toBe(3);
    expect(kept.map(({ disposed }) => disposed)).not.toContain(false); // aliases of a scope that has ended
  });
});
