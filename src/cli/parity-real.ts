import { ConfigReader, type JsonObject } from "../model/config.ts";
import type { PatchableModel } from "../patching/model.ts";
import { tap } from "../patching/tap.ts";
import { CheckpointError } from "../tensor/errors.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { type Check, checkEqual, checkTensor, type Tolerance } from "./parity-checks.ts";
import { objects, readJson } from "./parity-folder.ts";
import { GoldenFile } from "./parity-golden.ts";
import { newReport, type ParityReport } from "./parity-report.ts";
import { settingOf } from "./session.ts";

/** What transformers made of one prompt. */
interface RealCase {
  /** `case0`, `case1`, … */
  readonly name: string;
  readonly prompt: string;
  /** Nothing is added in front. */
  readonly ids: readonly number[];
  /** The most probable next tokens, best first, and their logits. */
  readonly topIds: readonly number[];
  readonly topLogits: readonly number[];
  /** Not stopping at an end token; special tokens are part of the text. */
  readonly greedyIds: readonly number[];
  readonly greedyText: string;
  /** Mean log-probability of tokens 1, 2, … of the prompt, given the ones before. */
  readonly meanLogProb: number;
}

/**
 * Compares a real model with what Hugging Face transformers computed with the same weights: `<name>.json` and, beside
 * it, `<name>.golden.safetensors`. Throws CheckpointError for files that are not of this form.
 */
export async function checkReal(path: string, model: PatchableModel): Promise<ParityReport> {
  const json = await readJson(path);
  const section = new ConfigReader(json, path).section("tolerance");
  const tolerance = { atol: section.number("atol"), rtol: section.number("rtol") };
  const cases = objects(json["cases"], `${path}: cases`).map((spec, i) => readCase(`case${i}`, spec, path));
  await using goldens = await GoldenFile.open(path.replace(/(\.json)?$/, ".golden.safetensors"));
  const checks: Check[] = [];
  for (const golden of cases) {
    checks.push(...(await checkForward(golden, goldens, tolerance, model)));
    checks.push(...(await checkGreedy(golden, model)));
  }
  return newReport(path, settingOf(model), checks, goldens.unread);
}

function readCase(name: string, spec: JsonObject, path: string): RealCase {
  const reader = new ConfigReader(spec, `${path}: ${name}`);
  const numbers = (key: string): number[] => {
    const list = spec[key];
    if (Array.isArray(list) && list.every((n): n is number => typeof n === "number")) return list;
    throw new CheckpointError(`${path}: ${name}: expected ${key} to be a list of numbers`);
  };
  return {
    name,
    prompt: reader.string("prompt"),
    ids: numbers("input_ids"),
    topIds: numbers("top10_ids"),
    topLogits: numbers("top10_logits"),
    greedyIds: numbers("greedy_ids"),
    greedyText: reader.string("greedy_text"),
    meanLogProb: reader.number("mean_log_prob"),
  };
}

/** One pass: the stream after every layer, the logits, and what follows from them. */
async function checkForward(
  { name, prompt, ids, topIds, topLogits, meanLogProb }: RealCase,
  goldens: GoldenFile,
  tolerance: Tolerance,
  model: PatchableModel,
): Promise<Check[]> {
  const { device, config } = model;
  const layers = Array.from({ length: config.layers }, (_, layer) => layer);
  const scope = device.openScope();
  try {
    const tensors = scope.enter(() => {
      const taps = Object.fromEntries(layers.map((layer) => [`${layer}`, tap(`resid_post.${layer}`, -1)]));
      const tapped = model.run(model.promptFromIds(ids), { taps, logits: "all" });
      return [tapped.logits!, ...layers.map((layer) => tapped[`${layer}`]!)] as Tensor<"f32">[];
    });
    const [logits, ...stream] = await device.read(tensors);
    const last = logits!.slice(-config.vocab);
    const stored = await goldens.read(`${name}/logits.last`, 1);
    const streams = await goldens.read(`${name}/resid_post.last`, 2);
    const expected = layers.map((l) => streams.values.slice(l * config.width, (l + 1) * config.width));
    return [
      checkEqual(`${name}/input_ids, from the text`, model.prompt(prompt, { bos: false }).ids, ids),
      checkTensor(`${name}/resid_post.last`, stream, expected, tolerance),
      checkTensor(`${name}/logits.last`, [last], [stored.values], tolerance),
      checkTensor(`${name}/top10_logits`, [topIds.map((id) => last[id]!)], [topLogits], tolerance),
      checkEqual(`${name}/top10_ids`, topOf(last, topIds, stored.values, tolerance), topIds),
      checkTensor(
        `${name}/mean_log_prob`,
        [[meanLogProbOf(logits!, ids, config.vocab)]],
        [[meanLogProb]],
        tolerance,
      ),
    ];
  } finally {
    scope.dispose();
  }
}

/**
 * The ids of the largest logits, as many as expected ones. Where the goldens themselves have two in a tie, as far as the
 * tolerance can tell, either may come first.
 */
function topOf(
  logits: Float32Array,
  expected: readonly number[],
  goldens: ArrayLike<number>,
  { atol, rtol }: Tolerance,
): number[] {
  const order = Uint32Array.from(logits.keys()).sort((a, b) => logits[b]! - logits[a]! || a - b);
  return expected.map((id, rank) => {
    const found = order[rank]!;
    const tied = Math.abs(goldens[found]! - goldens[id]!) <= atol + rtol * Math.abs(goldens[id]!);
    return tied ? id : found;
  });
}

/** logits: [tokens, vocab] */
function meanLogProbOf(logits: Float32Array, ids: readonly number[], vocab: number): number {
  let sum = 0;
  for (let i = 1; i < ids.length; i++) {
    const row = logits.subarray((i - 1) * vocab, i * vocab);
    const best = row.reduce((a, b) => Math.max(a, b));
    const mass = row.reduce((total, logit) => total + Math.exp(logit - best), 0);
    sum += row[ids[i]!]! - best - Math.log(mass);
  }
  return sum / (ids.length - 1);
}

async function checkGreedy(
  { name, ids, greedyIds, greedyText }: RealCase,
  model: PatchableModel,
): Promise<Check[]> {
  const options = { maxNewTokens: greedyIds.length, stopIds: [] };
  const found = (await model.generate(model.promptFromIds(ids), options)).ids;
  return [
    checkEqual(`${name}/greedy_ids`, found, greedyIds),
    checkEqual(`${name}/greedy_text`, model.tokenizer.decode(found), greedyText),
  ];
}
