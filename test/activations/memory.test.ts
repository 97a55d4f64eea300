import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { afterAll, expect, test } from "vitest";
import { collectActivations, readActivations } from "../../src/index.ts";
import { fixtureModel } from "../helpers/model.ts";

// In a process of its own: it measures what the process holds.

const folder = await mkdtemp(join(tmpdir(), "xpatch-activations-"));
afterAll(() => rm(folder, { recursive: true }));

const MEBI = 2 ** 20;
/** After so many prompts kernels are compiled, the pool is full, and collected garbage is what it will be. */
const WARM = 600;
const STEP = 100;

setFlagsFromString("--expose-gc");
const collectGarbage = runInNewContext("gc") as () => void;

/** What the process holds; garbage that waits for its collection is no part of it. */
function heldBytes(): number {
  collectGarbage();
  return process.memoryUsage().rss;
}

test("2,000 prompts are collected, and read back, in memory that does not grow with them", async () => {
  const model = await fixtureModel("llama");
  function* prompts() {
    for (let i = 0; i < 2000; i++) {
      yield model.promptFromIds(
        Array.from({ length: 6 + (i % 13) }, (_, j) => 20 + ((i * 31 + j * 17) % 140)),
      );
    }
  }
  const held: { prompts: number; rss: number; device: number }[] = [];
  const measure = (count: number) => {
    if (count - (held.at(-1)?.prompts ?? 0) < STEP) return;
    held.push({ prompts: count, rss: heldBytes(), device: model.device.memory.liveBytes });
  };
  const store = await collectActivations(model, prompts(), join(folder, "store"), {
    sites: ["resid_*.*", "mlp_*.*"],
    shardBytes: 4 * MEBI,
    onProgress: ({ prompts: count }) => measure(count),
  });
  const bytes = store.manifest.sites.reduce((sum, { width }, i) => {
    return sum + 4 * width * store.manifest.shards.reduce((rows, shard) => rows + shard.rows[i]!, 0);
  }, 0);
  expect(store.prompts).toBe(2000);
  const warm = held.filter(({ prompts: count }) => count >= WARM);
  const grown = Math.max(...warm.map(({ rss }) => rss)) - warm[0]!.rss;
  // What is collected behind it is much more.
  expect(bytes * (1 - WARM / 2000)).toBeGreaterThan(70 * MEBI);
  expect(grown / MEBI).toBeLessThan(40);
  expect(Math.max(...warm.map(({ device }) => device))).toBeLessThanOrEqual(
    Math.max(...held.filter(({ prompts: count }) => count < WARM).map(({ device }) => device)),
  );
  let [rows, most, batches] = [0, 0, 0];
  for await (const batch of readActivations(join(folder, "store"))) {
    rows += batch.rows;
    if (batches++ % 8 === 0) most = Math.max(most, heldBytes());
  }
  expect(rows).toBe(store.rows);
  expect((most - held.at(-1)!.rss) / MEBI).toBeLessThan(45);
});
