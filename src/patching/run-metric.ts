import { aKindOf, checkArgument } from "../arguments.ts";
import { ArgumentError, PromptError, ShapeError } from "../errors.ts";
import { mul } from "../kernels/elementwise/elementwise.ts";
import { concat } from "../kernels/movement/concat.ts";
import { takeAlongAxis } from "../kernels/movement/gather.ts";
import { mean } from "../kernels/reduction/reduce.ts";
import { logSoftmax } from "../kernels/reduction/softmax.ts";
import type { LanguageModel, ModelOutline } from "../model/language-model.ts";
import { imagePlaces } from "../model/prompt/image-places.ts";
import type { Prompt } from "../model/prompt/prompt.ts";
import { takeRows } from "../model/walk/forward.ts";
import type { RowMap } from "../model/walk/row-map.ts";
import { Tensor } from "../tensor/tensor.ts";
import { somePositions } from "./arguments.ts";
import { type Metric, measure, type NamedMetric, resolveMetric } from "./metric.ts";
import { type Positions, resolvePositions } from "./positions.ts";

/**
 * Mean cross entropy, in nats, with which a prompt predicts its own tokens at some positions, each from those before it: the
 * loss that language models are trained on.
 */
export interface NextTokenLoss {
  readonly kind: "nextTokenLoss";
  /** Positions of the tokens that are predicted. */
  readonly at: Positions;
}

/** A number that a run makes of a prompt. */
export type RunMetric<Values = Readonly<Record<string, unknown>>> =
  | NamedMetric
  | NextTokenLoss
  /**
   * A measure of one's own: the next token's logits [prompts, vocab], the option `clean` and the values of the run's taps →
   * [prompts].
   */
  | ((logits: Tensor, clean: Tensor | undefined, taps: Values) => Tensor);

/**
 * The loss of a prompt's own tokens at some positions; by default at all that can be predicted: from the second, without those
 * that a picture's features stand in for.
 */
export function nextTokenLoss(at: Positions = "all"): NextTokenLoss {
  checkArgument("nextTokenLoss", "at", at, somePositions);
  return { kind: "nextTokenLoss", at };
}

/** A metric for one model, its tokens looked up. Throws ArgumentError for what is no metric. */
export function resolveRunMetric(call: string, model: ModelOutline, metric: RunMetric): RunMetric {
  if (typeof metric === "object" && metric !== null && metric.kind === "nextTokenLoss") {
    checkArgument(call, "metric.at", metric.at, somePositions);
    return metric;
  }
  return resolveMetric(call, model, metric as Metric) as RunMetric;
}

/** The positions whose logits a metric reads, and the last; undefined where it reads no others. */
export function metricPositions(
  metric: RunMetric,
  prompts: readonly Prompt[],
  model: LanguageModel,
): number[][] | undefined {
  if (typeof metric !== "object" || metric.kind !== "nextTokenLoss") return undefined;
  return prompts.map((prompt) => {
    const before = predictedPositions(model, prompt, metric.at).map((position) => position - 1);
    return [...new Set([...before, prompt.last])].sort((a, b) => a - b);
  });
}

/** The rows of the last position of each prompt. */
export function lastRows(rows: RowMap, prompts: readonly Prompt[]): number[] {
  return prompts.map((prompt, i) => rows.row(i, prompt.last)!);
}

/** What a run has computed. */
export interface Computed {
  /** [positions, vocab] */
  readonly logits: Tensor;
  /** Which row of them is of which position; the last of each prompt is among them. */
  readonly rows: RowMap;
  readonly prompts: readonly Prompt[];
  readonly model: LanguageModel;
  readonly clean: Tensor | undefined;
  readonly taps: Readonly<Record<string, unknown>>;
}

/** A resolved metric of a run: f32 [prompts]. */
export function measureRun(metric: RunMetric, computed: Computed): Tensor {
  const { logits, rows, prompts, clean, taps } = computed;
  return logits.device.scope(() => {
    if (typeof metric === "object" && metric.kind === "nextTokenLoss") return lossOf(metric, computed);
    const last = takeRows(logits, lastRows(rows, prompts));
    const other = clean && asRows(clean, last);
    if (typeof metric !== "function") {
      if (metric.kind === "klDivergence" && !other) {
        throw new ArgumentError(
          "metric klDivergence: expected the option clean, the logits that it is measured from",
        );
      }
      return measure(metric, last, other ?? last);
    }
    const values = metric(last, other, taps);
    checkArgument(
      "metric",
      "what the function returns",
      values,
      aKindOf(Tensor, "of [prompts], a number for each"),
    );
    if (values.rank === 1 && values.size === prompts.length) return values;
    throw new ArgumentError(
      `metric: expected the function to return [${prompts.length}], found [${values.shape.join(", ")}]`,
    );
  });
}

function asRows(clean: Tensor, like: Tensor): Tensor {
  const vocab = like.dim(1);
  const rows = clean.rank === 1 ? clean.reshape([1, clean.size]) : clean;
  if (rows.rank === 2 && rows.dim(1) === vocab && (rows.dim(0) === 1 || rows.dim(0) === like.dim(0)))
    return rows;
  throw new ShapeError(`clean: expected logits [${vocab}] or [${like.dim(0)}, ${vocab}], found ${clean}`);
}

function lossOf({ at }: NextTokenLoss, { logits, rows, prompts, model }: Computed): Tensor {
  const losses = prompts.map((prompt, i) => {
    const predicted = predictedPositions(model, prompt, at);
    const from = predicted.map((position) => rows.row(i, position - 1)!);
    const labels = predicted.map((position) => prompt.ids[position]!);
    const ids = logits.device.tensor(Uint32Array.from(labels), { dtype: "u32", shape: [labels.length, 1] });
    const logs = logSoftmax(takeRows(logits, from)); // [predicted, vocab]
    return mean(mul(takeAlongAxis(logs, ids), -1)).reshape([1]);
  });
  return losses.length === 1 ? losses[0]! : concat(losses);
}

/**
 * Positions of the tokens of a sequence that a loss is over. Throws PromptError for those that nothing predicts, and where a token is
 * seen by what would have to predict it (a prompt that a model reads both ways).
 */
export function predictedPositions(model: LanguageModel, sequence: Prompt, at: Positions): number[] {
  const { config, name, network } = model;
  const ofImages = new Set(config.vision ? imagePlaces(sequence, config.vision) : []);
  const positions = at === "all" ? allPredicted(sequence, ofImages) : resolvePositions(at, sequence);
  for (const position of positions) {
    if (position === 0) throw new PromptError("nextTokenLoss: nothing predicts the first token of a prompt");
    if (ofImages.has(position)) {
      throw new PromptError(`nextTokenLoss: at position ${position} stands a picture, which has no token`);
    }
    if (network.stack.blocks.some(({ rule }) => rule(position - 1, { prompt: sequence }).end > position)) {
      throw new PromptError(
        `nextTokenLoss: ${name} attends both ways within a prompt: token ${position} is seen where it is to be predicted, so ` +
          "its loss says nothing",
      );
    }
  }
  return [...positions];
}

function allPredicted(sequence: Prompt, ofImages: ReadonlySet<number>): number[] {
  const all = Array.from({ length: sequence.length - 1 }, (_, i) => i + 1).filter((p) => !ofImages.has(p));
  if (all.length > 0) return all;
  throw new PromptError(`nextTokenLoss: expected a prompt of two tokens or more, found ${sequence.length}`);
}
