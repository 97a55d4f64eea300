import { platform } from "#platform";
import {
  aBoolean,
  aKindOf,
  aListOf,
  aNumber,
  anArray,
  anObject,
  aString,
  checkOptions,
  either,
  type Options,
  oneOf,
} from "../arguments.ts";
import { ArgumentError } from "../errors.ts";
import { Tape, type Watched } from "../gradient/tape.ts";
import type { LoadedParts, Parameter } from "../model/checkpoint/weights/parameters.ts";
import type { LanguageModel } from "../model/language-model.ts";
import type { Prompt } from "../model/prompt/prompt.ts";
import { picturesOf } from "../model/prompt/prompt-image.ts";
import { nearest } from "../nearest.ts";
import type { Device } from "../tensor/device.ts";
import { Tensor } from "../tensor/tensor.ts";
import { checkPrompts, somePositions } from "./arguments.ts";
import type { Edit } from "./edit.ts";
import type { Positions } from "./positions.ts";
import { type BatchResult, compute, type RunResult } from "./run.ts";
import { type RunMetric, resolveRunMetric } from "./run-metric.ts";
import type { SitePattern } from "./site-patterns.ts";
import { gradient, type Tap, type TapGroup, type Taps } from "./tap.ts";

/** What the gradients of a metric are taken by: sites, weights, pixels, values of edits. */
export interface GradientOptions<
  Pattern extends SitePattern = SitePattern,
  At extends Positions = Positions,
  T extends Taps = Taps,
  Name extends string = string,
> {
  /** Sites whose activations to take gradients of: names and patterns. */
  of?: Pattern | readonly Pattern[];
  /** At which positions; all unless given. */
  at?: At;
  /** Weights to take gradients of, by the names that the checkpoint has them under (`model.parameterNames`). */
  weights?: readonly string[];
  /** Any other tensors that the run computes with: the values of edits, say. */
  tensors?: { readonly [N in Name]: Tensor };
  /** Whether the result is to have the gradients of the pictures' pixel values, as the processor makes them. */
  pixels?: boolean;
  /** What to copy; `gradient(…)` beside `tap(…)` gives gradients of other sites at other positions. */
  taps?: T;
  edits?: readonly Edit[];
  /** The logits that the metric compares with (`klDivergence`): [vocab], or [prompts, vocab]. */
  clean?: Tensor;
  /** Positions whose logits the result has. Default "last". */
  logits?: "last" | "all";
  /**
   * Bytes of activations to keep for the way back. Beyond them the first blocks keep only what enters them, and are computed a
   * second time. Default: half of the memory that is free on software drivers, else 4 GiB.
   */
  keepBytes?: number;
}

const OPTIONS: Options<GradientOptions> = {
  of: either(aString, aListOf(aString)),
  at: somePositions,
  weights: aListOf(aString),
  tensors: anObject,
  pixels: aBoolean,
  taps: anObject,
  edits: anArray,
  clean: aKindOf(Tensor, "the logits of another run"),
  logits: oneOf("last", "all"),
  keepBytes: aNumber,
};

/** A metric with the gradients that do not belong to a site. */
export interface GradientFields<Name extends string> {
  /** [prompts] */
  readonly metric: Tensor<"f32">;
  /** By name, in the shape that the checkpoint has the weight in. */
  readonly weights: Readonly<Record<string, Tensor<"f32">>>;
  /**
   * Of each picture of the prompts, in order, if asked for: f32 [3, height, width], with the tiles in front where there are any, or
   * [patches, values of one] in the order of the tower's rows.
   */
  readonly pixels: readonly Tensor<"f32">[];
  /** By name, each of its tensor's shape. */
  readonly tensors: { readonly [N in Name]: Tensor<"f32"> };
}

type OfTap<Pattern extends SitePattern, At extends Positions> = {
  gradients: TapGroup<At, Pattern>;
};

/** Of one prompt: the gradients by site, in the shapes that taps of them have; taps under their names, and the logits. */
export type Gradients<
  Pattern extends SitePattern,
  At extends Positions,
  T extends Taps,
  Name extends string,
> = RunResult<T & OfTap<Pattern, At>> & GradientFields<Name>;

/** The same of several prompts; each in the shape that a batch's taps have. */
export type BatchGradients<
  Pattern extends SitePattern,
  At extends Positions,
  T extends Taps,
  Name extends string,
> = BatchResult<T & OfTap<Pattern, At>> & GradientFields<Name>;

/** Of GPUs' memory, of which WebGPU does not say how much there is. */
const GPU_KEEP_BYTES = 4 * 2 ** 30;

/**
 * The gradient of a metric of a run (with its edits) with respect to activations, weights or other tensors: one pass forward and
 * one back. Several prompts share both passes, and each gets what it would get alone; gradients of weights and other tensors are
 * those of the metrics' sum.
 *
 * Weights that are stored in 16 bits are taken as what they are, and their gradients are f32. Throws like `run`; GradientError for
 * weights and tensors that the run does not compute with, and for operations that gradients do not go through.
 */
export function gradients<
  const Pattern extends SitePattern = never,
  const At extends Positions = "all",
  const T extends Taps = Record<never, never>,
  const Name extends string = never,
>(
  model: LanguageModel,
  prompt: Prompt,
  metric: RunMetric,
  options: GradientOptions<Pattern, At, T, Name>,
): Gradients<Pattern, At, T, Name>;
export function gradients<
  const Pattern extends SitePattern = never,
  const At extends Positions = "all",
  const T extends Taps = Record<never, never>,
  const Name extends string = never,
>(
  model: LanguageModel,
  prompts: readonly Prompt[],
  metric: RunMetric,
  options: GradientOptions<Pattern, At, T, Name>,
): BatchGradients<Pattern, At, T, Name>;
export function gradients(
  model: LanguageModel,
  input: Prompt | readonly Prompt[],
  metric: RunMetric,
  options: GradientOptions,
): unknown {
  checkPrompts("gradients", input);
  checkOptions("gradients", options, OPTIONS);
  const { device } = model;
  const {
    of,
    at = "all",
    weights = [],
    tensors = {},
    taps = {},
    edits,
    clean,
    logits,
    keepBytes,
    pixels = false,
  } = options;
  const wanted = [
    of,
    pixels || undefined,
    ...weights,
    ...Object.keys(tensors),
    ...Object.values(taps).filter(isGradient),
  ];
  if (!wanted.some((each) => each !== undefined)) {
    throw new ArgumentError(
      'gradients: expected something to take gradients of: sites (of: "resid_post.*"), weights, pixels or tensors',
    );
  }
  for (const name of ["gradients", "weights", "pixels", "tensors", "metric"]) {
    if (Object.hasOwn(taps, name)) {
      throw new ArgumentError(
        `gradients: a tap cannot be called "${name}", the result has something by that name`,
      );
    }
  }
  if (pixels && [input].flat().every((prompt) => prompt.images.length === 0)) {
    throw new ArgumentError("gradients: expected a prompt with pictures for the option pixels, found none");
  }
  const resolved = resolveRunMetric("gradients", model, metric);
  return device.scope(() => {
    using tape = new Tape(device, { keepBytes: keepBytes ?? defaultKeepBytes(device) });
    const watchedWeights = watchWeights(tape, model.loaded, model.name, weights);
    const watchedTensors = Object.entries(tensors).map(
      ([name, tensor]) => [name, tape.watch(tensor)] as const,
    );
    let watchedPixels: Watched | undefined;
    const onPixels = (uploaded: Tensor) => {
      watchedPixels = tape.watch(uploaded);
    };
    const result = compute(
      "gradients",
      model,
      input,
      {
        taps: { ...taps, ...(of !== undefined && { gradients: gradient([of].flat() as SitePattern[], at) }) },
        ...(edits && { edits }),
        ...(logits && { logits }),
      },
      { metric: resolved, clean, back: { tape, ...(pixels && { onPixels }) } },
    );
    const read = (name: string, watched: Watched) => tape.gradientOfUsed(name, watched);
    return {
      gradients: {},
      ...result,
      weights: weightGradients(tape, watchedWeights),
      pixels: watchedPixels ? byPicture(read("the pixel values", watchedPixels), model, [input].flat()) : [],
      tensors: Object.fromEntries(watchedTensors.map(([name, each]) => [name, read(`tensor ${name}`, each)])),
    };
  });
}

/** Pixel values of all pictures as a tensor for each. */
function byPicture(all: Tensor, { config }: LanguageModel, prompts: readonly Prompt[]): Tensor[] {
  const { vision } = config;
  const layouts = prompts.flatMap((prompt) => picturesOf(prompt).map((picture) => vision!.layout(picture)));
  let start = 0;
  return layouts.map(({ tiles, towerRows }) => {
    const count = all.rank === 2 ? towerRows : (tiles ?? 1);
    start += count;
    const own = all.rows(start - count, start);
    return all.rank === 2 || vision!.tiled ? own : own.at(0);
  });
}

function isGradient(tap: Tap | TapGroup | undefined): boolean {
  return tap?.kind === "gradient";
}

/** A weight that a tape watches. */
export interface WatchedWeight {
  readonly name: string;
  readonly parameter: Parameter;
  readonly parts: readonly Watched[];
}

/** Has a tape watch weights. Throws ArgumentError for names that there are none of, with the nearest. */
export function watchWeights(
  tape: Tape,
  { parameters }: LoadedParts,
  model: string,
  names: readonly string[],
): WatchedWeight[] {
  return names.map((name) => {
    const parameter = parameters.get(name);
    if (!parameter) {
      const near = nearest(name, [...parameters.keys()]);
      throw new ArgumentError(
        `gradients: ${model} has no weight ${JSON.stringify(name)}; the nearest is "${near}"`,
      );
    }
    if (parameter.packed) {
      throw new ArgumentError(
        `gradients: ${name} is kept in ${parameter.packed} and has no gradient; those of activations flow through it`,
      );
    }
    return { name, parameter, parts: parameter.tensors.map((tensor) => tape.watch(tensor)) };
  });
}

/** The gradients of watched weights by name, each as the checkpoint has the weight. */
export function weightGradients(tape: Tape, watched: readonly WatchedWeight[]): Record<string, Tensor> {
  return Object.fromEntries(
    watched.map(({ name, parameter, parts }) => {
      const gradients = parts.map((part) => tape.gradientOfUsed(`weight ${name}`, part));
      return [name, parameter.whole(gradients)];
    }),
  );
}

/** Bytes of activations that a run keeps for its way back unless told otherwise. */
export function defaultKeepBytes(device: Device): number {
  const free = device.info.fallback ? platform.freeMemory() : undefined;
  return free === undefined ? GPU_KEEP_BYTES : free / 2;
}
