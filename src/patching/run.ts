import { aNumber, anArray, anObject, checkOptions, type Options, oneOf } from "../arguments.ts";
import { SiteError } from "../errors.ts";
import type { Tape } from "../gradient/tape.ts";
import { add } from "../kernels/elementwise/elementwise.ts";
import type { LanguageModel } from "../model/language-model.ts";
import { checkContext, type Prompt } from "../model/prompt/prompt.ts";
import { forward, type LogitPositions, logitRows, takeRows } from "../model/walk/forward.ts";
import { Pass } from "../model/walk/pass.ts";
import type { RowMap } from "../model/walk/row-map.ts";
import { sharedStarts } from "../model/walk/shared-starts.ts";
import type { SiteName } from "../model/walk/sites.ts";
import { drive } from "../model/walk/walk.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { checkEdits, checkPrompts, checkTaps } from "./arguments.ts";
import type { Edit } from "./edit.ts";
import type { OnePosition } from "./positions.ts";
import { eachResult, resolveTaps } from "./resolve-taps.ts";
import { lastRows, measureRun, metricPositions, type RunMetric } from "./run-metric.ts";
import type { SitesOf } from "./site-patterns.ts";
import { batchOf, type Target } from "./site-targets.ts";
import { startLimits } from "./start-limits.ts";
import type { Tap, TapGroup, Taps } from "./tap.ts";
import { resolveEdits, Watcher } from "./watcher.ts";

/** Taps, edits and extent of a run. */
export interface RunOptions<T extends Taps = Record<never, never>> {
  /** What to copy; the result has a tensor under each of these names. */
  taps?: T;
  /** What to change, in this order where several concern one site. */
  edits?: readonly Edit[];
  /** Last layer to compute. The result then has no logits. */
  stopAfter?: number;
  /** Positions to compute logits for. Default "last". */
  logits?: "last" | "all";
}

const OPTIONS: Options<RunOptions> = {
  taps: anObject,
  edits: anArray,
  stopAfter: aNumber,
  logits: oneOf("last", "all"),
};

/** A tap's value for one prompt; of a tap of several sites by site. */
export type TapValues<T> = {
  [K in keyof T]: T[K] extends TapGroup<infer _, infer Pattern>
    ? { [Site in SitesOf<Pattern>]: Tensor<"f32"> }
    : Tensor<"f32">;
};

/** A tap's value for a list of prompts; see {@link Tap}. */
export type TapLists<T> = {
  [K in keyof T]: T[K] extends Tap<infer At, infer Site>
    ? TapList<At, Site>
    : T[K] extends TapGroup<infer At, infer Pattern>
      ? { [Site in SitesOf<Pattern>]: TapList<At, Site> }
      : never;
};

/** Of scores and patterns always an array; the site has to be known to the compiler to tell. */
export type TapList<At, Site extends SiteName> = Site extends `${string}${"scores" | "pattern"}.${number}`
  ? Tensor<"f32">[]
  : At extends OnePosition
    ? Tensor<"f32">
    : Tensor<"f32">[];

/** Logits: [vocab], or [positions, vocab] if all were asked for. Undefined after an early stop. */
export type RunResult<T> = TapValues<T> & { logits: Tensor<"f32"> | undefined };

/** Logits: [prompts, vocab], or a [positions, vocab] a prompt if all were asked for. Undefined after an early stop. */
export type BatchResult<T> = TapLists<T> & {
  logits: Tensor<"f32"> | Tensor<"f32">[] | undefined;
};

/**
 * Runs prompts through the model, with taps and edits. Everything is recorded at once and nothing is waited for; read
 * the tensors of the result to see them. They pass to the caller's scope.
 *
 * Several prompts share one pass without padding, and give what each would give alone.
 *
 * Throws SiteError for sites, heads or shapes that do not exist, and for taps and edits that would not fire; PromptError
 * for positions outside a prompt, prompts longer than the model's context and those that the model's `check` refuses. All
 * before anything is computed.
 */
export function run<const T extends Taps>(
  model: LanguageModel,
  prompt: Prompt,
  options?: RunOptions<T>,
): RunResult<T>;
export function run<const T extends Taps>(
  model: LanguageModel,
  prompts: readonly Prompt[],
  options?: RunOptions<T>,
): BatchResult<T>;
export function run(
  model: LanguageModel,
  input: Prompt | readonly Prompt[],
  options: RunOptions<Taps> = {},
): Record<string, unknown> {
  checkPrompts("run", input);
  checkOptions("run", options, OPTIONS);
  return compute("run", model, input, options);
}

/** What is made of a run's logits. */
export interface Measure {
  /** Resolved for the model. */
  readonly metric: RunMetric;
  /** What it compares with. */
  readonly clean?: Tensor | undefined;
  /** What is added to it: [prompts] of the run's taps. */
  readonly extra?: ((taps: Readonly<Record<string, unknown>>) => Tensor) | undefined;
  /** To go back from it: the tape, and by how much each prompt's counts ([prompts]; default 1). */
  readonly back?: {
    readonly tape: Tape;
    readonly cotangent?: Tensor;
    /** Told of the pixel values of the prompts' pictures, in order. */
    readonly onPixels?: (pixels: Tensor) => void;
  };
}

/** What {@link run} does, in the name of `call`, and the metric as `metric` with it, after the way back. */
export function compute(
  call: string,
  model: LanguageModel,
  input: Prompt | readonly Prompt[],
  options: RunOptions<Taps>,
  measure?: Measure,
): Record<string, unknown> {
  const { network } = model;
  const { device, config } = network;
  const single = !Array.isArray(input);
  const given = (single ? [input] : input) as readonly Prompt[];
  const { taps = {}, edits = [], stopAfter } = options;
  checkTaps(call, taps, { gradients: measure?.back !== undefined });
  checkEdits(call, edits);
  checkRun(call, given, config.context, config.layers, taps, stopAfter);
  const prompts = given.map((prompt) => model.sequenceOf(prompt));
  return device.scope(() => {
    const batch = batchOf(prompts, config.vision);
    const resolvedEdits = resolveEdits(edits, model.sites, device, batch);
    const resolvedTaps = resolveTaps(taps, model.sites, batch, single);
    const targets = [...resolvedEdits.map((e) => e.target), ...eachResult(resolvedTaps).map((t) => t.target)];
    checkStop(targets, stopAfter);
    const tape = measure?.back?.tape;
    const watcher = new Watcher(resolvedEdits, resolvedTaps, tape);

    const onPixels = measure?.back?.onPixels;
    const everywhere =
      options.logits === "all" || targets.some((t) => headBeforeLast(t, config.layers, prompts));
    const computed: LogitPositions = everywhere
      ? "all"
      : ((measure && metricPositions(measure.metric, prompts, model)) ?? "last");
    const limits = tape ? undefined : startLimits(prompts, resolvedEdits, resolvedTaps, computed);
    const starts = limits && sharedStarts(network, prompts, limits);
    const pass = Pass.over(device, prompts, {
      ...(starts && { rows: starts.rows, keys: starts.keys }),
      inUse: (site: SiteName) => watcher.uses(site),
      ...(onPixels && { onPixels }),
    });
    const rows = logitRows(pass.rows, computed);
    const through = () =>
      drive(
        forward(network, prompts, pass, { stopAfter, logits: computed, ...(starts && { entrance: starts }) }),
        watcher,
      );
    const logits = tape ? tape.record(through) : through();
    const metric = measure && measured(measure, watcher);
    return {
      ...watcher.finish(),
      logits: logits && shapeLogits(logits, rows, prompts, options.logits ?? "last", single),
      ...(metric && { metric }),
    };

    function measured({ metric, clean, extra, back }: Measure, collected: Watcher): Tensor {
      const run = { logits: logits!, rows, prompts, model, clean, taps: collected.tapped() };
      const whole = () => {
        const own = measureRun(metric, run);
        return extra ? add(own, extra(run.taps)) : own;
      };
      if (!back) return whole();
      const value = back.tape.record(whole);
      back.tape.backward(value, back.cotangent);
      collected.takeGradients();
      return value;
    }
  });
}

/** Checks what does not depend on single taps and edits. */
function checkRun(
  call: string,
  prompts: readonly Prompt[],
  context: number,
  layers: number,
  taps: object,
  stopAfter: number | undefined,
): void {
  if (prompts.length === 0) throw new SiteError(`${call}: expected at least one prompt, found none`);
  for (const prompt of prompts) checkContext(prompt.length, context);
  if (Object.hasOwn(taps, "logits")) {
    throw new SiteError(`${call}: a tap cannot be called "logits", the result has them under that name`);
  }
  if (stopAfter !== undefined && !(Number.isInteger(stopAfter) && stopAfter >= 0 && stopAfter < layers)) {
    throw new SiteError(
      `${call}: expected stopAfter to be a layer from 0 to ${layers - 1}, found ${stopAfter}`,
    );
  }
}

function checkStop(targets: readonly Target[], stopAfter: number | undefined): void {
  if (stopAfter === undefined) return;
  const late = targets.filter((target) => target.info.order > stopAfter);
  if (late.length === 0) return;
  const names = late.map((target) => target.label).join("; ");
  throw new SiteError(`these never fire, because the run stops after layer ${stopAfter}: ${names}`);
}

/** Whether a target wants the final norm or the logits at other positions than the last. */
function headBeforeLast(target: Target, layers: number, prompts: readonly Prompt[]): boolean {
  if (target.info.order < layers) return false;
  return [...target.positions].some(([s, positions]) => positions.some((p) => p !== prompts[s]!.last));
}

function shapeLogits(
  logits: Tensor,
  rows: RowMap,
  prompts: readonly Prompt[],
  wanted: "last" | "all",
  single: boolean,
): Tensor | Tensor[] {
  if (wanted === "all") {
    const each = rows.spans.map(({ row, count }) => logits.rows(row, row + count));
    return single ? each[0]! : each;
  }
  const last = takeRows(logits, lastRows(rows, prompts));
  return single ? last.at(0) : last;
}
