/**
 * How fast activation stores are written and read back, without a model: `node scripts/run-ts.mjs bench/activation-store.ts [rows] [width]`
 * (default: a million rows of 128 numbers). Prints JSON. Writing includes flushing to the disk.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readActivations } from "xpatch";
import type { FileKind, StoreDType, StoreSetting } from "#src/activations/manifest";
import { StoreWriter } from "#src/activations/store-writer";
import { Prompt } from "#src/model/prompt/prompt";
import { describeMachine } from "./machine.ts";

const [rows = 1_000_000, width = 128] = process.argv.slice(2).map(Number);
const TOKENS = 100;
const MEGA = 1e6;

const ids = Array.from({ length: TOKENS }, (_, i) => i);
const prompt = new Prompt({
  text: "x",
  ids,
  tokens: ids.map((id) => `t${id}`),
  spans: {},
  images: [],
  bos: false,
});

interface Figures {
  readonly files: FileKind;
  readonly dtype: StoreDType;
  readonly rows: number;
  readonly megabytes: number;
  readonly writeMegabytesPerSecond: number;
  readonly readMegabytesPerSecond: number;
  readonly peakRssMiB: number;
}

async function measure(files: FileKind, dtype: StoreDType, count: number): Promise<Figures> {
  const folder = await mkdtemp(join(tmpdir(), "xpatch-bench-"));
  const setting: StoreSetting = {
    ...{ model: "none", family: "none", weights: [], adapters: [], sites: [{ site: "resid_post.0", width }] },
    ...{ positions: "all", image: null, dtype, files, shardBytes: 64 * 2 ** 20 },
  };
  // Before the clock starts: that is the model's work.
  const vectors = Array.from({ length: 8 }, (_, k) =>
    Float32Array.from({ length: TOKENS * width }, (_, i) => Math.sin(i * (k + 1))),
  );
  let peak = 0;
  const look = () => (peak = Math.max(peak, process.memoryUsage.rss()));
  const began = performance.now();
  const writer = await StoreWriter.open(folder, setting);
  for (let p = 0; p < count / TOKENS; p++) {
    const number = writer.next(prompt)!;
    const index = {
      prompts: new Int32Array(TOKENS).fill(number),
      positions: Int32Array.from(ids),
      tokens: Int32Array.from(ids),
    };
    await writer.add(prompt, [{ ...index, spelt: prompt.tokens, vectors: vectors[p % 8]! }]);
    if (p % 100 === 0) look();
  }
  await writer.finish();
  const written = performance.now();
  let [read, sum] = [0, 0];
  for await (const batch of readActivations(folder)) {
    read += batch.rows;
    for (let i = 0; i < batch.vectors.length; i += 97) sum += batch.vectors[i]!;
    if (read % 64 === 0) look();
  }
  const end = performance.now();
  if (read !== count || !Number.isFinite(sum)) throw new Error(`expected ${count} rows back, found ${read}`);
  await rm(folder, { recursive: true });
  const megabytes = (count * width * (dtype === "f32" ? 4 : 2)) / MEGA;
  const rate = (ms: number) => Math.round((megabytes / ms) * 1000);
  return {
    ...{ files, dtype, rows: count, megabytes },
    ...{ writeMegabytesPerSecond: rate(written - began), readMegabytesPerSecond: rate(end - written) },
    peakRssMiB: Math.round(peak / 2 ** 20),
  };
}

const machine = describeMachine();
const results = [
  await measure("safetensors", "f32", rows!),
  await measure("safetensors", "f16", rows!),
  await measure("parquet", "f32", Math.max(TOKENS, rows! / 20)),
];
console.log(JSON.stringify({ date: new Date().toISOString(), machine, width, results }, undefined, 2));
