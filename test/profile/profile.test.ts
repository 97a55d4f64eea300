import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { add } from "../../src/kernels/elementwise/elementwise.ts";
import { linear } from "../../src/kernels/matmul/linear.ts";
import { gatherRows } from "../../src/kernels/movement/gather.ts";
import { loadModel, type PatchableModel } from "../../src/patching/model.ts";

import { measureLimits } from "../../src/profile/limits.ts";
import { profile, profileWork } from "../../src/profile/profile.ts";
import type { Device } from "../../src/tensor/device.ts";
import { openDevice } from "../../src/tensor/open-device.ts";
import { nanoFiles, nanoFolder } from "../helpers/nano.ts";

const LIMITS = { gflops: 100, gbPerSecond: 10 };
const METHODS = [
  ["timestamps", {}],
  ["one by one", { without: ["timestamp-query"] as const }],
] as const;

describe.each(METHODS)("timed by %s", (method, options) => {
  let device: Device;
  let model: PatchableModel;
  beforeAll(async () => {
    device = await openDevice({ ...options, toggles: ["-timestamp_quantization"] });
    model = await loadModel(nanoFolder(nanoFiles(), "llm"), { device });
  });
  afterAll(() => device.destroy());

  const prompt = () => model.prompt("Q: Italy\nA:");
  const work = () => model.generate(prompt(), { maxNewTokens: 3, stopIds: [] });

  test("every dispatch of the device is there, with what it counted", async () => {
    await work();
    const before = device.counters;
    await work();
    const after = device.counters;
    const found = await profile(model, prompt(), { maxNewTokens: 3, limits: LIMITS });
    expect(found.method).toBe(method);
    expect(found.phases.map(({ name, steps }) => [name, steps])).toEqual([
      ["prefill", 1],
      ["decode", 2],
    ]);
    for (const rows of ["kernels", "places"] as const) {
      const count = found.phases
        .flatMap((phase) => phase[rows])
        .reduce((sum, row) => sum + row.dispatches, 0);
      expect(count).toBe(after.dispatches - before.dispatches);
    }
    const sum = (field: "submits" | "copies") =>
      found.phases.reduce((total, phase) => total + phase[field], 0);
    expect(sum("submits")).toBe(after.submits - before.submits);
    expect(sum("copies")).toBe(after.copies - before.copies);
    expect(found.dispatches.every(({ start, end }) => end >= start && start >= 0)).toBe(true);
    expect(found.dispatches.every(({ operation }) => operation !== undefined)).toBe(true);
    expect(found.phases.every(({ ms }) => ms > 0)).toBe(true);
  });

  test("parts are the model's own blocks, in order", async () => {
    const { phases } = await profile(model, prompt(), { maxNewTokens: 2, rounds: 1, limits: LIMITS });
    const blocks = Array.from({ length: model.config.layers }, (_, i) => `block ${i}`);
    for (const { places } of phases) {
      expect(places.map(({ name }) => name).filter((name) => name !== "elsewhere")).toEqual([
        "embed",
        ...blocks,
        "head",
      ]);
      expect(new Set(places.slice(1, -2).map(({ dispatches }) => dispatches)).size).toBe(1);
      expect(places.reduce((sum, { share }) => sum + share, 0)).toBeCloseTo(1);
    }
  });

  test("what is generated has the same bits, and memory is as before", async () => {
    const [plain, memory] = [await work(), device.memory.liveBytes];
    let answer: unknown;
    const again = async () => {
      answer = await work();
    };
    await profileWork(device, again, { rounds: 1, limits: LIMITS });
    expect(answer).toEqual(plain);
    expect(device.memory.liveBytes).toBe(memory);
  });

  test("host writes, freed buffers and reads keep their turn", async () => {
    const run = async () => {
      const x = device.tensor([1, 2, 3, 4]);
      const y = add(x, x);
      device.write(x, new Uint8Array(new Float32Array([5, 6, 7, 8]).buffer));
      const z = add(x, y);
      x.dispose();
      device.trim();
      const values = await Promise.all([y.read(), z.read()]);
      y.dispose();
      z.dispose();
      return values.map((each) => [...each]);
    };
    const results: number[][][] = [];
    await profileWork(device, async () => void results.push(await run()), { limits: LIMITS });
    expect(results).toHaveLength(4);
    for (const result of results)
      expect(result).toEqual([
        [2, 4, 6, 8],
        [7, 10, 13, 16],
      ]);
  });

  test("an error of the work is thrown, and the device works as before", async () => {
    const failing = profileWork(
      device,
      () => {
        if (device.profiler) throw new RangeError("mine");
      },
      { limits: LIMITS },
    );
    await expect(failing).rejects.toThrow("mine");
    expect(device.profiler).toBeUndefined();
    expect(await device.tensor([1]).read()).toEqual(new Float32Array([1]));
  });

  test("one profile at a time", async () => {
    const nested = profileWork(
      device,
      () => device.profiler && profileWork(device, () => {}, { limits: LIMITS }),
      {
        limits: LIMITS,
      },
    );
    await expect(nested).rejects.toThrow(/profiled already/);
  });
});

describe("counts", () => {
  let device: Device;
  beforeAll(async () => {
    device = await openDevice();
  });
  afterAll(() => device.destroy());

  test("bytes and arithmetic of a product are those counted by hand", async () => {
    const x = device.tensor(new Float32Array(8 * 64), { shape: [8, 64] });
    const weight = device.tensor(new Float32Array(32 * 64), { shape: [32, 64], dtype: "f16" });
    const { phases } = await profileWork(device, () => linear(x, weight).dispose(), { limits: LIMITS });
    const [row] = phases[0]!.kernels;
    expect(row).toMatchObject({ operation: "linear", inputs: "f32[8, 64] f16[32, 64]", dispatches: 1 });
    // x and the result in f32, the weight in f16, each once.
    expect(row!.bytes).toBe(4 * (8 * 64 + 8 * 32) + 2 * 32 * 64);
    expect(row!.flops).toBe(2 * 8 * 32 * 64);
    const leastMs = Math.max(row!.bytes / 10, row!.flops / 100) / 1e6;
    expect(row!.ofLimit).toBeCloseTo(leastMs / row!.ms, 10);
  });

  test("of a table only the rows that are picked count", async () => {
    const table = device.tensor(new Float32Array(1000 * 8), { shape: [1000, 8] });
    const ids = device.tensor(Uint32Array.from([3, 5]), { dtype: "u32" });
    const { phases } = await profileWork(device, () => gatherRows(table, ids).dispose(), { limits: LIMITS });
    expect(phases[0]!.bytes).toBe(4 * (2 * 8 + 2 + 2 * 8));
  });

  test("arithmetic of attention is of the keys that the mask shows", async () => {
    const model = await loadModel(nanoFolder(nanoFiles(), "llm"), { device });
    const prompt = model.prompt("Q: Italy\nA:");
    const { phases } = await profile(model, prompt, { maxNewTokens: 2, rounds: 1, limits: LIMITS });
    const { layers, heads, headDim } = model.config;
    const pairs = [(prompt.length * (prompt.length + 1)) / 2, prompt.length + 1];
    phases.forEach(({ kernels }, i) => {
      const own = kernels.filter(({ operation }) => operation === "attention");
      const flops = own.reduce((sum, row) => sum + row.flops, 0);
      expect(flops).toBeCloseTo(4 * heads * headDim * layers * pairs[i]!);
    });
    model.dispose();
  });

  test("nobody pays who does not profile: no queries, no passes of their own, as many before as after", async () => {
    const model = await loadModel(nanoFolder(nanoFiles(), "llm"), { device });
    const queries = vi.spyOn(device.gpu, "createQuerySet");
    let passes = 0;
    const create = device.gpu.createCommandEncoder.bind(device.gpu);
    const encoders = vi.spyOn(device.gpu, "createCommandEncoder").mockImplementation((descriptor) => {
      const encoder = create(descriptor);
      const begin = encoder.beginComputePass.bind(encoder);
      encoder.beginComputePass = (own) => {
        passes++;
        return begin(own);
      };
      return encoder;
    });
    const counted = async (work: () => Promise<unknown>) => {
      const before = { ...device.counters, passes };
      await work();
      const after = { ...device.counters, passes };
      return Object.fromEntries(
        Object.entries(after).map(([name, value]) => [name, value - before[name as keyof typeof before]]),
      );
    };
    const work = () => model.generate(model.prompt("Q: Italy\nA:"), { maxNewTokens: 3, stopIds: [] });
    await work();
    const before = await counted(work);
    expect(queries).not.toHaveBeenCalled();
    expect(before["passes"]).toBeLessThan(before["dispatches"]! / 4);
    const profiled = await counted(() => profileWork(device, work, { rounds: 1, limits: LIMITS }));
    expect(profiled["passes"]).toBe(2 * before["passes"]! + before["dispatches"]!);
    const calls = queries.mock.calls.length;
    expect(await counted(work)).toEqual(before);
    expect(queries).toHaveBeenCalledTimes(calls);
    encoders.mockRestore();
    queries.mockRestore();
    model.dispose();
  });
});

test("limits are those of arithmetic and of memory, and leave no memory behind", async () => {
  await using device = await openDevice({ maxBindingBytes: 2 ** 20 });
  const before = device.memory.liveBytes;
  const { gflops, gbPerSecond } = await measureLimits(device);
  for (const limit of [gflops, gbPerSecond]) {
    expect(limit).toBeGreaterThan(0.001);
    expect(limit).toBeLessThan(1e6);
  }
  expect(device.memory.liveBytes).toBe(before);
});
