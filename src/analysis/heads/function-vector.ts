import { aFunction, aNumber, aWholeFromOne, checkOptions, type Options, oneOf } from "../../arguments.ts";
import { ArgumentError, GenerationError, PromptError } from "../../errors.ts";
import { mul, sub } from "../../kernels/elementwise/elementwise.ts";
import { concat, stack } from "../../kernels/movement/concat.ts";
import { gatherRows } from "../../kernels/movement/gather.ts";
import { mean, sum } from "../../kernels/reduction/reduce.ts";
import type { LanguageModel } from "../../model/language-model.ts";
import type { Prompt } from "../../model/prompt/prompt.ts";
import type { SiteName } from "../../model/walk/sites.ts";
import { checkModelAndPrompts } from "../../patching/arguments.ts";
import { gradients } from "../../patching/gradients.ts";
import { type Metric, measure, type NamedMetric, probability, resolveMetric } from "../../patching/metric.ts";
import { type OneToken, oneTokenId } from "../../patching/one-token.ts";
import { record } from "../../patching/recording.ts";
import { run } from "../../patching/run.ts";
import { settingOf } from "../../patching/setting.ts";
import { tap } from "../../patching/tap.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { allLayers } from "../layers.ts";
import { batchesOf, cellOf, resumeBatch } from "../maps/patch-cells.ts";
import { FunctionVector, type HeadEffect } from "./function-vector-result.ts";
import { headOutputs } from "./head-outputs.ts";

/** A prompt from which the task cannot be read, and the token that it would be answered with. */
export interface CorruptedPrompt {
  /** Examples whose answers are permuted, and a question. */
  readonly prompt: Prompt;
  /** The right next token: its id, or a text of one token. */
  readonly answer: OneToken;
}

/** What {@link functionVector} judges heads by, and how many it sums. */
export interface FunctionVectorOptions {
  /** Few-shot prompts whose answers are permuted, say: heads are judged by how far they bring back the answer. */
  corrupted: readonly CorruptedPrompt[];
  /** How many heads the vector sums. Default 10, as the paper has for models of 6 billion parameters. */
  heads?: number;
  /** `exact` runs each corrupted prompt with each head patched; `attribution` estimates that by one gradient a prompt. */
  method?: "exact" | "attribution";
  /** What is measured of a prompt with this answer. Default the answer's probability. */
  metric?: (answer: OneToken) => NamedMetric;
  /** Most patched copies in one batch. Default 2048. */
  batchRows?: number;
  /** Called with the number of corrupted prompts done, and of all. */
  onProgress?: (done: number, all: number) => void;
}

const OPTIONS: Options<FunctionVectorOptions> = {
  corrupted: { words: "a list of { prompt, answer }", holds: Array.isArray },
  heads: aWholeFromOne,
  method: oneOf("exact", "attribution"),
  metric: aFunction,
  batchRows: aNumber,
  onProgress: aFunction,
};

const BATCH_ROWS = 2048;
const LAST = [-1];

/** z of each layer at the last position, averaged over the examples: f32 [1, heads · headDim]. */
type MeanZ = readonly Tensor[];

/**
 * The function vector of a task (Todd et al. 2024, arXiv 2310.15213): what the heads that carry the task write into the residual
 * stream of a prompt's last token, on average over `examples`, prompts that show the task. The heads are those of the largest
 * average indirect effect: the change of the metric on corrupted prompts when one head's output at the last token is its mean
 * over the examples.
 *
 * Throws PromptError for no prompts, ArgumentError for answers of more than one token and for more heads than there are,
 * SiteError for models whose blocks are more than attention and an MLP, GradientError (`attribution`) for operations without
 * gradient, and GenerationError where the metric is NaN.
 *
 * @example const { vector } = await functionVector(model, shown, { corrupted });
 * model.run(query, { edits: [addVector("resid_post.9", -1, vector)] });
 */
export async function functionVector(
  model: LanguageModel,
  examples: readonly Prompt[],
  options: FunctionVectorOptions,
): Promise<FunctionVector> {
  const call = "functionVector";
  checkModelAndPrompts(call, model, "examples", examples);
  checkOptions(call, options, OPTIONS, { required: ["corrupted"] });
  const { heads = 10, method = "exact", metric = probability, onProgress } = options;
  const { layers, heads: perLayer } = model.config;
  if (examples.length === 0 || options.corrupted.length === 0) {
    const found = `${examples.length} and ${options.corrupted.length}`;
    throw new PromptError(`${call}: expected examples and corrupted prompts, found ${found}`);
  }
  if (heads > layers * perLayer) {
    throw new ArgumentError(`${call}: expected at most ${layers * perLayer} heads, found ${heads}`);
  }
  const corrupted = options.corrupted.map(({ prompt, answer }, i) => {
    const id = oneTokenId(`${call}, corrupted[${i}].answer`, model, answer);
    return { prompt, metric: resolveMetric(call, model, metric(id)) };
  });
  const { device } = model;
  const scope = device.openScope();
  try {
    const { means, outputs } = scope.enter(() => meanHeads(model, examples));
    const effectOf = method === "exact" ? patched : estimated;
    const total = new Float64Array(layers * perLayer);
    let before = 0;
    for (const [i, each] of corrupted.entries()) {
      const found = await effectOf(model, means, each, options.batchRows ?? BATCH_ROWS);
      if (Number.isNaN(found.before) || found.effects.some((effect) => Number.isNaN(effect))) {
        throw new GenerationError(`${call}: the metric of corrupted[${i}] is NaN`);
      }
      found.effects.forEach((effect, cell) => {
        total[cell]! += effect / corrupted.length;
      });
      before += found.before / corrupted.length;
      onProgress?.(i + 1, corrupted.length);
    }
    const ranked = [...total.keys()]
      .sort((a, b) => total[b]! - total[a]! || a - b)
      .map((cell): HeadEffect => {
        return { layer: Math.floor(cell / perLayer), head: cell % perLayer, effect: total[cell]! };
      });
    const chosen = ranked.slice(0, heads);
    const vector = scope.enter(() => {
      const rows = chosen.map(({ layer, head }) => layer * perLayer + head);
      return sum(gatherRows(outputs, device.tensor(rows, { dtype: "u32" })), 0);
    });
    return new FunctionVector({
      setting: settingOf(model),
      vector: vector.alias(),
      chosen,
      ranked,
      method,
      before,
      prompts: { examples: examples.length, corrupted: corrupted.length },
    });
  } finally {
    scope.dispose();
  }
}

/** Over the examples: z of each layer, and what each head adds to the residual stream, f32 [layers · heads, width]. */
function meanHeads(model: LanguageModel, examples: readonly Prompt[]): { means: MeanZ; outputs: Tensor } {
  const sites = sitesOf(model);
  const { z } = run(model, examples, { taps: { z: tap(sites, LAST) } });
  const each = sites.map((site) => concat((z as Readonly<Record<string, Tensor[]>>)[site]!, 0));
  return {
    means: each.map((all) => mean(all, 0, { keepDims: true })), // of [examples, heads · headDim]
    outputs: concat(
      each.map((all, layer) => mean(headOutputs(model, all, layer), 0)), // [heads, width]
      0,
    ),
  };
}

function sitesOf(model: LanguageModel): SiteName[] {
  return allLayers(model).map((layer): SiteName => `z.${layer}`);
}

interface Judged {
  readonly prompt: Prompt;
  readonly metric: Metric;
}

/** What each head does to a prompt's metric, layer by layer, and the metric without that. */
interface Effects {
  readonly effects: Float32Array;
  readonly before: number;
}

async function patched(
  model: LanguageModel,
  means: MeanZ,
  { prompt, metric }: Judged,
  batchRows: number,
): Promise<Effects> {
  const { device, config } = model;
  const scope = device.openScope();
  try {
    using recording = record(model, [prompt]);
    const cells = scope.enter(() =>
      sitesOf(model).flatMap((site, layer) =>
        Array.from({ length: config.heads }, (_, head) =>
          cellOf(model, site, { head }, [prompt.last], means[layer]!),
        ),
      ),
    );
    const before = scope.enter(() => measure(metric, recording.logits, recording.logits));
    const values = [before];
    for (const batch of batchesOf(model, prompt, cells, batchRows)) {
      const judged = resumeBatch(recording, batch, (logits) => measure(metric, logits, recording.logits));
      values.push(scope.enter(() => judged.values.alias()));
      judged.values.dispose();
    }
    const [[own], ...found] = (await device.read(values)) as [Float32Array, ...Float32Array[]];
    const effects = Float32Array.from(found.flatMap((part) => [...part])).map((value) => value - own!);
    return { effects, before: own! };
  } finally {
    scope.dispose();
  }
}

/** To first order: the change of each head's output times the gradient of the metric there. */
async function estimated(model: LanguageModel, means: MeanZ, { prompt, metric }: Judged): Promise<Effects> {
  const { device, config } = model;
  const scope = device.openScope();
  try {
    const sites = sitesOf(model);
    const read = scope.enter(() => {
      const back = gradients(model, prompt, metric as NamedMetric, {
        of: sites,
        at: LAST,
        taps: { z: tap(sites, LAST) },
      });
      const z = (back as unknown as { z: Record<string, Tensor> }).z;
      const byLayer = sites.map((site, layer) => {
        const change = sub(means[layer]!, z[site]!);
        const products = mul(change, (back.gradients as Record<string, Tensor>)[site]!);
        return sum(products.reshape([config.heads, config.headDim]), 1);
      });
      return [back.metric, stack(byLayer, 0)];
    });
    const [[before], effects] = (await device.read(read)) as [Float32Array, Float32Array];
    return { effects, before: before! };
  } finally {
    scope.dispose();
  }
}
