/**
 * What formats of weights do to a model, as a table for docs/quantised.md:
 *
 *   node scripts/run-ts.mjs scripts/measure-quantised.ts xpatch:vlm xpatch:smollm2
 *   node scripts/run-ts.mjs scripts/measure-quantised.ts xpatch:vlm --layer 20 --formats nf4,fp4
 *
 * Against the model as stored: KL divergence and agreement of the most probable next token over all positions of eight few-shot
 * prompts, the cosine of task vectors (mean over layers), and how many of 24 questions a task vector answers in the layer that is
 * best in the model as stored (or in the one given).
 */

import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { scoreSweep } from "../src/analysis/vectors/score-sweep.ts";
import { sweepLayers } from "../src/analysis/vectors/sweep-layers.ts";
import { extractTaskVectors } from "../src/analysis/vectors/task-vectors.ts";
import type { Quantise } from "../src/model/checkpoint/weights/quantise.ts";
import { loadModel, type PatchableModel } from "../src/patching/model.ts";
import { run } from "../src/patching/run.ts";
import { fewShotPrompt } from "../src/tasks/few-shot.ts";
import { taskSource } from "../src/tasks/specification.ts";
import { itemsOf, parseTask } from "../src/tasks/task.ts";
import { openDevice } from "../src/tensor/open-device.ts";

const FORMATS: readonly (readonly [name: string, quantise: Quantise | undefined])[] = [
  ["as stored", undefined],
  ["int8", "int8"],
  ["q8_0", "q8_0"],
  ["int4", "int4"],
  ["int4, zero points, groups of 32", { format: "int4", group: 32, zeros: true }],
  ["q4_1", "q4_1"],
  ["q4_0", "q4_0"],
  ["nf4", "nf4"],
  ["fp4", "fp4"],
  ["nf4, embedding and head too", { linear: "nf4", embedding: "nf4", head: "nf4" }],
];
const QUESTIONS = 24;

const path = "tasks/country-capital.json";
const task = parseTask(readFileSync(path, "utf8"), path);
const device = await openDevice();

interface Measured {
  readonly bytes: number;
  readonly logits: readonly Float32Array[];
  readonly vectors: Float32Array;
  readonly best: { readonly layer: number; readonly correct: number };
}

async function measure(model: PatchableModel, layer?: number): Promise<Measured> {
  const source = await taskSource(model, task, "train", { kind: "text", items: 8 });
  using vectors = extractTaskVectors(model, source.prompts, { at: source.at });
  const logits: Float32Array[] = [];
  for (const prompt of source.prompts) {
    const { logits: all } = run(model, prompt, { logits: "all" });
    logits.push(await all!.read());
    all!.dispose();
  }
  const items = itemsOf(task, "test").slice(0, QUESTIONS);
  const queries = items.map((item) => fewShotPrompt(model, [], item.input));
  const swept = await sweepLayers(model, queries, vectors, layer === undefined ? {} : { layers: [layer] });
  const { layers, best } = scoreSweep(model.tokenizer, items, swept);
  const { correct } = layers.find((scored) => scored.layer === best)!;
  const matrices = [...model.loaded.linears.values()].flatMap(({ layers: all }) => all);
  const parts = new Set(matrices.map(({ layer: { weight } }) => weight));
  const bytes = [...parts].reduce((sum, { bytes: own }) => sum + own, 0);
  return {
    bytes,
    logits,
    vectors: (await vectors.vectors.read()) as Float32Array,
    best: { layer: best, correct },
  };
}

function compare(found: Measured, expected: Measured, vocab: number, width: number): string[] {
  let [kl, same, positions] = [0, 0, 0];
  found.logits.forEach((values, i) => {
    for (let at = 0; at < values.length; at += vocab) {
      const p = logProbabilities(expected.logits[i]!.subarray(at, at + vocab));
      const q = logProbabilities(values.subarray(at, at + vocab));
      let [bestP, bestQ] = [0, 0];
      for (let k = 0; k < vocab; k++) {
        kl += Math.exp(p[k]!) * (p[k]! - q[k]!);
        if (p[k]! > p[bestP]!) bestP = k;
        if (q[k]! > q[bestQ]!) bestQ = k;
      }
      same += Number(bestP === bestQ);
      positions++;
    }
  });
  const layers = found.vectors.length / width;
  let cosine = 0;
  for (let l = 0; l < layers; l++) {
    const [a, b] = [found, expected].map(({ vectors }) => vectors.subarray(l * width, (l + 1) * width));
    cosine += dot(a!, b!) / Math.sqrt(dot(a!, a!) * dot(b!, b!)) / layers;
  }
  return [(kl / positions).toFixed(4), `${((100 * same) / positions).toFixed(1)} %`, cosine.toFixed(4)];
}

function logProbabilities(logits: Float32Array): Float64Array {
  const largest = logits.reduce((most, x) => Math.max(most, x), Number.NEGATIVE_INFINITY);
  const sum = logits.reduce((total, x) => total + Math.exp(x - largest), 0);
  return Float64Array.from(logits, (x) => x - largest - Math.log(sum));
}

function dot(a: Float32Array, b: Float32Array): number {
  return a.reduce((sum, x, i) => sum + x * b[i]!, 0);
}

const { positionals, values: given } = parseArgs({
  options: { layer: { type: "string" }, formats: { type: "string" } },
  allowPositionals: true,
});
const layer = given.layer === undefined ? undefined : Number(given.layer);
const only = given.formats?.split(",");
for (const ref of positionals) {
  let stored: Measured | undefined;
  for (const [name, quantise] of FORMATS) {
    if (quantise && only && !only.includes(name)) continue;
    const model = await loadModel(ref, { device, ...(quantise && { quantise }) });
    const { vocab, width } = model.config;
    const found = await measure(model, layer ?? stored?.best.layer);
    stored ??= found;
    const cells = compare(found, stored, vocab, width);
    const size = `${(found.bytes / 2 ** 20).toFixed(1)} MiB`;
    console.log(
      `| ${ref} | ${name} | ${size} | ${cells.join(" | ")} | ${found.best.correct} of ${QUESTIONS} (layer ${found.best.layer}) |`,
    );
    model.dispose();
    device.trim();
  }
}
await device.destroy();
