/**
 * Copies a folder with goldens (docs/adding-a-family.md) with large tensors thinned: of each, every seventh number and
 * the largest are kept, which are rows, heads and channels of every kind, since no width is a multiple of the step.
 *
 *     node scripts/run-ts.mjs scripts/thin-goldens.ts <from> <to> [--drop-pixels] [--keep <pattern>]
 *
 * --drop-pixels leaves out pixel values as well, which `parity` then makes of the pictures, without comparing them; --keep
 * keeps tensors whole whose name matches, which a test reads by itself.
 */

import { chmodSync, cpSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { readTensor, type TensorEntry } from "../src/model/checkpoint/entries/tensor-entry.ts";
import { SafetensorsFile } from "../src/model/checkpoint/safetensors/safetensors.ts";
import {
  encodeSafetensors,
  type TensorToWrite,
} from "../src/model/checkpoint/safetensors/safetensors-writer.ts";
import { readThinned, type Thinned, thin, thinnedMetadata } from "../src/parity/thinned.ts";
import { openFile } from "../src/platform/node-file.ts";

/** Smaller tensors are kept whole. */
const LEAST = 500;
/** Steps to choose from: the first that no width is a multiple of. */
const STEPS = [7, 11, 13];
/** What the runs start from (pixel values apart: parity makes them anew), and what is compared as a whole. */
const KEPT = /(^|\/)(in\.|generate\.|adamw|lora)|\.vector$/;
const PIXELS = /\/in\.pixel_(values|attention_mask)$/;

const { values: options, positionals } = parseArgs({
  options: { "drop-pixels": { type: "boolean" }, keep: { type: "string" } },
  allowPositionals: true,
  args: process.argv.slice(2),
});
const [from, to] = positionals;
if (!from || !to) throw new Error("usage: thin-goldens.ts <from> <to> [--drop-pixels] [--keep <pattern>]");
const dropPixels = options["drop-pixels"];
const keep = options.keep === undefined ? undefined : new RegExp(options.keep);

cpSync(from, to, { recursive: true, dereference: true });
for (const name of readdirSync(to, { recursive: true, encoding: "utf8" })) {
  chmodSync(join(to, name), statSync(join(to, name)).isDirectory() ? 0o755 : 0o644);
}
for (const name of readdirSync(to)) {
  if (/(^|\.)(golden|gradients)\.safetensors$/.test(name)) await thinFile(join(to, name));
}

async function thinFile(path: string): Promise<void> {
  const file = await SafetensorsFile.open(await openFile(path));
  const thinned = new Map(readThinned(file.metadata, path));
  const tensors: TensorToWrite[] = [];
  for (const entry of file.entries) {
    if (dropPixels && PIXELS.test(entry.name)) continue;
    const step = thinned.has(entry.name) ? undefined : await thinTensor(entry);
    if (step) thinned.set(entry.name, step.thinned);
    const data = step?.kept ?? (await wholeOf(entry));
    const shape = step ? [step.kept.byteLength / 4] : entry.shape;
    tensors.push({ name: entry.name, stored: entry.stored, shape, data });
  }
  await file.close();
  writeFileSync(path, await encodeSafetensors(tensors, thinnedMetadata(thinned)));
}

async function thinTensor(entry: TensorEntry): Promise<{ kept: Uint8Array; thinned: Thinned } | undefined> {
  const { name, shape, stored } = entry;
  if (stored !== "F32" || entry.storedBytes / 4 < LEAST) return undefined;
  if (keep?.test(name)) return undefined;
  const isPixels = PIXELS.test(name) && shape.length >= 4;
  if (KEPT.test(name) && !isPixels) return undefined;
  const every = STEPS.find((step) => shape.every((n) => n % step !== 0));
  if (every === undefined) return undefined;
  const values = new Float32Array((await readTensor(entry)).buffer);
  const largest = values.reduce((at, x, i) => (Math.abs(x) > Math.abs(values[at]!) ? i : at), 0);
  const kept = thin(values, { every, largest });
  return kept && { kept: new Uint8Array(kept.buffer), thinned: { shape, every, largest } };
}

async function wholeOf(entry: TensorEntry): Promise<Uint8Array> {
  if (!entry.raw) throw new Error(`${entry.name} cannot be copied as it is`);
  const chunks: Uint8Array[] = [];
  for await (const chunk of entry.raw(1 << 20)) chunks.push(chunk.slice());
  return Buffer.concat(chunks);
}
