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
/** Of the answers, those that are given one after the other. */
const ALONE = 0.2;
/** Answers during which a process must not grow. */
const ANSWERS = 2500;

async function answers(model: PatchableModel, count: number): Promise<void> {
  for (let i = 0; i < count * ALONE; i++) await answer(model);
  for (let i = 0; i < (count * (1 - ALONE)) / CLIENTS; i++) {
    await Promise.all(Array.from({ length: CLIENTS }, () => answer(model)));
  }
}

// Lavapipe's caches take longer to fill.
describe.skipIf(process.platform !== "linux").each<[AdapterChoice, number, number]>([
  ["lavapipe", 1500, 1500],
  ["swiftshader", 800, 100],
])("on %s", (adapter, before, growth) => {
  test(`a process does not grow with ${ANSWERS} answers after ${before} to warm up`, {
    timeout: 600_000,
  }, async () => {
    const device = await testDevice({ adapter });
    const model = await loadModel("test/fixtures/llama/model", { device });
    await answers(model, before);
    const warm = sizeOfProcess();
    await answers(model, ANSWERS);
    const last = sizeOfProcess();
    const live = device.memory.liveBuffers;
    model.dispose();
    expect(device.memory.liveBuffers).toBeLessThan(live);

    const found = JSON.stringify([warm, last]);
    expect(last.maps - warm.maps, found).toBeLessThan(growth);
    expect(last.resident - warm.resident, found).toBeLessThan(30);
    // Lavapipe: the cache full of bind groups (8192), those that wait to be collected (2048), some hundred buffers.
    expect(last.maps, found).toBeLessThan(15_000);
  });
});
