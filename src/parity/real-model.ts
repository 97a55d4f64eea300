import { CheckpointError } from "../errors.ts";
import { copy } from "../kernels/movement/copy.ts";
import { ConfigReader, type JsonObject } from "../model/checkpoint/json/config-reader.ts";
import { forward } from "../model/walk/forward.ts";
import { generateTokens } from "../model/walk/generate-tokens.ts";
import { Pass } from "../model/walk/pass.ts";
import { NO_VISITOR, type Visitor } from "../model/walk/site-events.ts";
import { drive } from "../model/walk/walk.ts";
import type { PatchableModel } from "../patching/model.ts";
import { settingOf } from "../patching/setting.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { objects, readJson } from "./case-folder.ts";
import { type Check, checkEqual, checkTensor, type Tolerance } from "./checks.ts";
import { GoldenFile } from "./golden-file.ts";
import { HalfRope } from "./half-rope.ts";
import { newReport, type ParityReport } from "./report.ts";

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

/** What transformers computed with a real model. */
export interface RealGoldens {
  readonly path: string;
  readonly cases: readonly RealCase[];
  readonly tolerance: Tolerance;
  readonly goldens: GoldenFile;
}

/** Reads `<name>.json` and, beside it, `<name>.golden.safetensors`. Throws CheckpointError for other files. */
export async function readReal(path: string): Promise<RealGoldens> {
  const json = await readJson(path);
  const section = new ConfigReader(json, path).section("tolerance");
  const tolerance = { atol: section.number("atol"), rtol: section.number("rtol") };
  const cases = objects(json["cases"], `${path}: cases`).map((spec, i) => readCase(`case${i}`, spec, path));
  const goldens = await GoldenFile.open(path.replace(/(\.json)?$/, ".golden.safetensors"));
  return { path, cases, tolerance, goldens };
}

/**
 * Compares a real model with what Hugging Face transformers computed with the same weights. Where that fails it is tried
 * once more with RoPE's frequencies rounded to f16, which is what a model has after `model.half()`; the report then says
 * so. Closes the goldens.
 */
export async function checkReal(
  real: RealGoldens,
  model: PatchableModel,
  onProgress: (done: number, total: number) => void = () => {},
): Promise<ParityReport> {
  const { path, cases, tolerance } = real;
  await using goldens = real.goldens;
  const checkAll = async (visitor: Visitor): Promise<Check[]> => {
    const checks: Check[] = [];
    for (const golden of cases)
      checks.push(...(await checkForward(golden, goldens, tolerance, model, visitor)));
    return checks;
  };
  const passed = (checks: readonly Check[]) => checks.every((check) => check.passed);

  using halfRope = new HalfRope(model, Math.max(...cases.map((c) => c.ids.length + c.greedyIds.length)));
  const asLoaded = await checkAll(NO_VISITOR);
  const rounded = passed(asLoaded) ? [] : await checkAll(halfRope);
  const half = rounded.length > 0 && passed(rounded);
  const checks = half ? rounded : asLoaded;
  // Answers, token by token, take most of the time.
  for (const [i, golden] of cases.entries()) {
    checks.push(...(await checkGreedy(golden, model, half ? halfRope : NO_VISITOR)));
    onProgress(i + 1, cases.length);
  }
  return newReport(path, settingOf(model), checks, goldens.unread, half ? HALF_ROPE_NOTE : undefined);
}

const HALF_ROPE_NOTE =
  "run with RoPE frequencies rounded to f16: as loaded the model differs, so the goldens' model went through half()";

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
  visitor: Visitor,
): Promise<Check[]> {
  const { device, config, network } = model;
  const scope = device.openScope();
  try {
    const stream: Tensor[] = [];
    const observer: Visitor = {
      uses: (site) => visitor.uses(site) || site.startsWith("resid_post."),
      visit(event) {
        if (visitor.uses(event.site)) visitor.visit(event);
        else stream.push(copy(event.value.rows(-1)));
      },
    };
    const all = scope.enter(() => {
      const prompts = [model.promptFromIds(ids)];
      const pass = Pass.over(device, prompts, { inUse: (site) => observer.uses(site) });
      return drive(forward(network, prompts, pass, { logits: "all" }), observer)!;
    });
    const [logits, ...streams] = await device.read([all, ...stream] as Tensor<"f32">[]);
    const last = logits!.slice(-config.vocab);
    const stored = await goldens.read(`${name}/logits.last`, 1);
    const residual = await goldens.read(`${name}/resid_post.last`, 2);
    return [
      checkEqual(`${name}/input_ids, from the text`, model.prompt(prompt, { bos: false }).ids, ids),
      checkTensor(`${name}/resid_post.last`, [joined(streams)], [residual.values], tolerance),
      checkTensor(`${name}/logits.last`, [last], [stored.values], tolerance),
      checkTensor(`${name}/top10_logits`, [topIds.map((id) => last[id]!)], [topLogits], tolerance),
      checkEqual(`${name}/top10_ids`, topOf(last, topIds, topLogits, tolerance), topIds),
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
 * The ids of the largest logits, as many as expected ones. Where another has the golden logit of a rank too, as far as the
 * tolerance can tell, either may come first.
 */
function topOf(
  logits: Float32Array,
  expected: readonly number[],
  goldens: readonly number[],
  { atol, rtol }: Tolerance,
): number[] {
  const order = Uint32Array.from(logits.keys()).sort((a, b) => logits[b]! - logits[a]! || a - b);
  return expected.map((id, rank) => {
    const found = order[rank]!;
    const golden = goldens[rank]!;
    const has = (each: number) => Math.abs(logits[each]! - golden) <= atol + rtol * Math.abs(golden);
    const tied = has(found) && has(id);
    return tied ? id : found;
  });
}

function joined(parts: readonly Float32Array[]): Float32Array {
  return Float32Array.from(parts.flatMap((part) => [...part]));
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

/**
 * A greedy continuation. Goldens whose first token is not their own most probable one come from a `generate()` that was
 * given no attention mask and then masks whatever equals the pad token: it is as if those tokens were not there.
 */
async function checkGreedy(
  { name, ids, topIds, greedyIds, greedyText }: RealCase,
  model: PatchableModel,
  visitor: Visitor,
): Promise<Check[]> {
  const { network, tokenizer } = model;
  const pad = tokenizer.idOf(tokenizer.specialTokens["pad_token"] ?? "");
  const masked = greedyIds[0] !== topIds[0] && pad !== undefined && ids.includes(pad);
  const prompt = model.promptFromIds(masked ? ids.filter((id) => id !== pad) : ids);
  const found: number[] = [];
  const options = { maxNewTokens: greedyIds.length, visitor };
  for await (const step of generateTokens(network, [prompt], options)) found.push(...step.ids);
  const note = masked ? ", the prompt's pad tokens masked" : "";
  return [
    checkEqual(`${name}/greedy_ids${note}`, found, greedyIds),
    checkEqual(`${name}/greedy_text${note}`, tokenizer.decode(found), greedyText),
  ];
}
