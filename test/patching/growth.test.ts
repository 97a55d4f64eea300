import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { loadModel, type PatchableModel } from "../../src/patching/model.ts";
import type { AdapterChoice } from "../../src/platform/platform.ts";
import { seededNumbers } from "../helpers/compare.ts";
import { testDevice } from "../helpers/device.ts";
import { randomIds } from "../helpers/model.ts";

// A process that goes on answering must not grow: neither in memory nor in memory maps, of which Linux gives a process
// 65,530. Lavapipe takes one for every buffer and every bind group that is alive.

interface Size {
  /** Entries of /proc/self/maps. */
  readonly maps: number;
  /** Resident memory in MB. */
  readonly resident: number;
}

function sizeOfProcess(): Size {
  const maps = readFileSync("/proc/self/maps", "utf8").split("\n").length - 1;
  return { maps, resident: process.memoryUsage().rss / 1e6 };
}

const next = seededNumbers(7);
const between = (low: number, high: number) => low + Math.floor(((next() + 1) / 2) * (high - low + 1));

async function answer(model: PatchableModel): Promise<void> {
  const prompt = model.promptFromIds(randomIds(between(1, 60), between(0, 1e6)));
  await model.generate(prompt, { maxNewTokens: between(1, 3), stopIds: [] });
}

const CLIENTS = 20;

describe.skipIf(process.platform !== "linux").each<[AdapterChoice, number, number]>([
  ["lavapipe", 5000, 1500],
  ["swiftshader", 5000, 100],
])("on %s", (adapter, answers, growth) => {
  test(`a process that gives ${answers} answers does not grow after warming up`, {
    timeout: 600_000,
  }, async () => {
    const device = await testDevice({ adapter });
    const model = await loadModel("test/fixtures/llama/model", { device });
    const sizes: Size[] = [];
    for (let quarter = 0; quarter < 4; quarter++) {
      for (let i = 0; i < answers / 10; i++) await answer(model);
      for (let i = 0; i < (answers * 3) / 20 / CLIENTS; i++) {
        await Promise.all(Array.from({ length: CLIENTS }, () => answer(model)));
      }
      sizes.push(sizeOfProcess());
    }
    const live = device.memory.liveBuffers;
    model.dispose();
    expect(device.memory.liveBuffers).toBeLessThan(live);

    const [, warm, , last] = sizes as [Size, Size, Size, Size];
    const found = JSON.stringify(sizes);
    expect(last.maps - warm.maps, found).toBeLessThan(growth);
    expect(last.resident - warm.resident, found).toBeLessThan(30);
    // Lavapipe: the cache full of bind groups (8192), those that wait to be collected (2048), some hundred buffers.
    expect(last.maps, found).toBeLessThan(15_000);
  });
});
