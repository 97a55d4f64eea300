import { aFunction, aListOf, aNumber, checkArgument, checkOptions, type Options } from "../../arguments.ts";
import { ArgumentError, GenerationError, PromptError } from "../../errors.ts";
import type { LanguageModel } from "../../model/language-model.ts";
import type { Prompt } from "../../model/prompt/prompt.ts";
import { mostProbableTokens } from "../../model/walk/sampling.ts";
import { aModel, aPrompt, somePositions } from "../../patching/arguments.ts";
import { addVector, type Edit } from "../../patching/edit.ts";
import { logProbability, type Metric, measure, resolveMetric, showMetric } from "../../patching/metric.ts";
import { type Positions, resolvePositions, showPositions } from "../../patching/positions.ts";
import { record } from "../../patching/recording.ts";
import { settingOf } from "../../patching/setting.ts";
import { checkLayers } from "../layers.ts";
import { KnockoutSweep } from "./knockout-result.ts";
import { batchesOf, type Cell, looksAhead, resumeBatch } from "./patch-cells.ts";

/** Which attention is cut. */
export interface Cut {
  /** The tokens that attend. */
  from: Positions;
  /** The tokens that they are kept from attending to. */
  to: Positions;
  /** Default: all heads. */
  heads?: readonly number[];
}

/** Which attention {@link knockout} cuts, and in which layers. */
export interface KnockoutOptions extends Cut {
  layers: readonly number[];
  /** With several prompts in a run: the index of this one. Edits are for all unless given. */
  prompt?: number;
}

const CUT: Options<Cut> = { from: somePositions, to: somePositions, heads: aListOf(aNumber) };
const KNOCKOUT: Options<KnockoutOptions> = { ...CUT, layers: aListOf(aNumber), prompt: aNumber };

/**
 * Edits that keep some tokens from attending to others in some layers: the scores become −∞, so that the softmax shares their
 * weight out among the other keys (attention knockout; Geva et al. 2023, arXiv 2304.14767). A token with no key left attends to
 * nothing. The edits are for runs of this prompt as it is, since scores have a column for each of its tokens.
 *
 * Throws PromptError for positions outside the prompt and where none of the tokens attends to any of the others anyway, and
 * SiteError for layers that there are not.
 *
 * @example model.run(prompt, { edits: knockout(model, prompt, { from: -1, to: { span: "image" }, layers: [10, 11, 12] }) });
 */
export function knockout(model: LanguageModel, prompt: Prompt, options: KnockoutOptions): Edit[] {
  checkArgument("knockout", "model", model, aModel);
  checkArgument("knockout", "prompt", prompt, aPrompt);
  checkOptions("knockout", options, KNOCKOUT, { required: ["from", "to", "layers"] });
  checkLayers(model, options.layers, "knockout");
  const { from, to, heads, layers, prompt: index } = options;
  const { queries, value } = cutOf("knockout", model, prompt, { from, to });
  const parts = heads ? heads.map((head) => ({ head })) : [{}];
  return layers.flatMap((layer) =>
    parts.map((part) =>
      addVector(`scores.${layer}`, queries, value, {
        ...part,
        ...(index !== undefined && { prompt: index }),
      }),
    ),
  );
}

/** The queries, and what is added to their scores. */
function cutOf(
  call: string,
  model: LanguageModel,
  prompt: Prompt,
  { from, to }: Cut,
): { queries: readonly number[]; value: Float32Array } {
  const sequence = model.sequenceOf(prompt);
  const [queries, keys] = [from, to].map((at) => resolvePositions(at, sequence)) as [number[], number[]];
  if (!looksAhead(model, sequence) && Math.min(...keys) > Math.max(...queries)) {
    throw new PromptError(
      `${call}: expected tokens that attend to some of the others, found ${showPositions(from)}, before all of ${showPositions(to)}`,
    );
  }
  const value = new Float32Array(sequence.length);
  for (const key of keys) value[key] = Number.NEGATIVE_INFINITY;
  return { queries, value };
}

/** Which attention {@link knockoutSweep} cuts, and what it measures. */
export interface KnockoutSweepOptions extends Cut {
  /** Layers that are cut at once, around each layer of the sweep: as many before it as behind it. Default 1. */
  window?: number;
  /** The layers of the sweep. Default: all. */
  layers?: readonly number[];
  /** Default: the log probability of the prompt's most probable next token. */
  metric?: Metric;
  /** Most rows in one batch; bounds the memory. Default 2048. */
  batchRows?: number;
  /** Called with the number of layers done, and of all. */
  onProgress?: (done: number, all: number) => void;
}

const SWEEP: Options<KnockoutSweepOptions> = {
  ...CUT,
  window: aNumber,
  layers: aListOf(aNumber),
  metric: { words: "a metric, as logitDifference(…) makes one", holds: (x) => x !== null },
  batchRows: aNumber,
  onProgress: aFunction,
};

const BATCH_ROWS = 2048;

/**
 * What {@link knockout} in a window of layers around each layer does to a metric: between which layers what some tokens say gets
 * to others. At both ends the window is what there is of it; an even one has one layer more behind than before. Throws like
 * `knockout`, and GenerationError where the metric is NaN.
 *
 * @example console.log(await knockoutSweep(model, prompt, { from: -1, to: { span: "image" }, window: 5 }));
 */
export async function knockoutSweep(
  model: LanguageModel,
  prompt: Prompt,
  options: KnockoutSweepOptions,
): Promise<KnockoutSweep> {
  checkArgument("knockoutSweep", "model", model, aModel);
  checkArgument("knockoutSweep", "prompt", prompt, aPrompt);
  checkOptions("knockoutSweep", options, SWEEP, { required: ["from", "to"] });
  const { from, to, heads, window = 1, batchRows = BATCH_ROWS, onProgress } = options;
  const all = Array.from({ length: model.config.layers }, (_, layer) => layer);
  const { layers = all } = options;
  checkLayers(model, layers, "knockoutSweep");
  if (!(Number.isInteger(window) && window > 0)) {
    throw new ArgumentError(`knockoutSweep: expected a window of 1 layer or more, found ${window}`);
  }
  const given = options.metric && resolveMetric("knockoutSweep", model, options.metric);
  const { queries } = cutOf("knockoutSweep", model, prompt, { from, to });
  const windows = layers.map((layer) => {
    const first = layer - Math.floor((window - 1) / 2);
    return all.filter((each) => each >= first && each < first + window);
  });
  const cells = windows.map(
    (cut): Cell => ({
      position: Math.min(...queries),
      edits: knockout(model, prompt, { from, to, layers: cut, ...(heads && { heads }) }),
    }),
  );
  const { device } = model;
  const scope = device.openScope();
  try {
    using recording = record(model, [prompt]);
    const metric = given ?? (await likeliest(model, recording.logits));
    const plain = scope.enter(() => measure(metric, recording.logits, recording.logits));
    const [value] = await plain.read();
    const values: number[] = [];
    for (const batch of batchesOf(model, model.sequenceOf(prompt), cells, batchRows)) {
      const judge = (logits: typeof recording.logits) => measure(metric, logits, recording.logits);
      const { values: found } = resumeBatch(recording, batch, judge);
      try {
        values.push(...(await found.read()));
      } finally {
        found.dispose();
      }
      onProgress?.(values.length, cells.length);
    }
    const bad = values.findIndex(Number.isNaN);
    if (bad >= 0) throw new GenerationError(`knockoutSweep: the metric is NaN with layer ${layers[bad]} cut`);
    return new KnockoutSweep({
      setting: settingOf(model),
      from: showPositions(from),
      to: showPositions(to),
      window,
      metric: showMetric(metric, model),
      value: value!,
      layers: layers.map((layer, i) => ({
        layer,
        cut: { first: windows[i]![0]!, last: windows[i]!.at(-1)! },
        value: values[i]!,
        change: values[i]! - value!,
      })),
    });
  } finally {
    scope.dispose();
  }
}

async function likeliest(
  model: LanguageModel,
  logits: Parameters<typeof mostProbableTokens>[0],
): Promise<Metric> {
  const [token] = await mostProbableTokens(logits, () => "knockoutSweep: the prompt");
  return resolveMetric("knockoutSweep", model, logProbability(token!));
}
