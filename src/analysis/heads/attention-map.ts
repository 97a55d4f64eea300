import {
  aFunction,
  aListOf,
  aNumber,
  aString,
  checkArgument,
  checkOptions,
  either,
  type Options,
  oneOf,
} from "../../arguments.ts";
import { PromptError } from "../../errors.ts";
import { mean } from "../../kernels/reduction/reduce.ts";
import type { LanguageModel, ModelOutline } from "../../model/language-model.ts";
import { type PatchGrid, type Prompt, patchPositions, wholeSpan } from "../../model/prompt/prompt.ts";
import { picturesOf } from "../../model/prompt/prompt-image.ts";
import type { SiteName } from "../../model/walk/sites.ts";
import { aModel, aPrompt, onePosition } from "../../patching/arguments.ts";
import type { PatchableModel } from "../../patching/model.ts";
import { type OnePosition, resolvePositions } from "../../patching/positions.ts";
import { run } from "../../patching/run.ts";
import { type Setting, settingOf } from "../../patching/setting.ts";
import { tap } from "../../patching/tap.ts";
import type { Scope } from "../../tensor/scope.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { allLayers, checkLayers } from "../layers.ts";
import { PictureAttention } from "./picture-attention.ts";
import { rollout } from "./rollout.ts";

/** Which token, picture, layers and heads {@link attentionMaps} gives maps of. */
export interface AttentionMapOptions {
  /** The token that attends. Default: the last. */
  at?: OnePosition;
  /** Name of the image's span: `image`, `image2`, … Default `image`. */
  span?: string;
  /** Default: all. */
  layers?: readonly number[];
  /** One head, or a map for each. Default: the mean of all. */
  head?: number | "each";
}

/**
 * How a token's attention lies over the patches of an image; where a model reads pictures by cross-attention, that attention, in the
 * layers that have it.
 */
export interface AttentionMap {
  /** Of which model, in which dtypes, on which adapter. */
  readonly setting?: Setting;
  readonly layer: number;
  /** Absent for means of all heads, and for rollouts. */
  readonly head?: number;
  readonly grid: PatchGrid;
  /** grid.rows * grid.columns weights, row by row; shares of the token's whole attention, which is 1. */
  readonly weights: Float32Array;
  /** Their sum: the share that the image has of the token's attention. */
  readonly share: number;
}

/** Where an image's patches lie in a prompt. */
export interface ImagePatches {
  /** Position of the first patch; the others follow row by row. */
  readonly start: number;
  readonly end: number;
  readonly grid: PatchGrid;
  /** Positions from one row to the next, where others stand between them. */
  readonly rowStride?: number;
}

/**
 * Where an image's features are, if they are one grid of patches; of an image that is cut into tiles, those of the whole. Throws
 * PromptError if there is none.
 */
export function imagePatches(prompt: Prompt, name = "image"): ImagePatches {
  const { start, end, grid, rowStride } = wholeSpan(prompt.span(name));
  if (grid) return { start, end, grid, ...(rowStride !== undefined && { rowStride }) };
  throw new PromptError(`Expected the span "${name}" to be a grid of an image's patches; it is not.`);
}

/** Which keys of an attention pattern are the patches of an image. */
interface PatchKeys {
  readonly site: "pattern" | "xattn_pattern";
  /** Layers that have it. */
  readonly layers: readonly number[];
  readonly grid: PatchGrid;
  /** By patch, row by row. */
  readonly keys: readonly number[];
}

/**
 * Where attention to an image's patches is: to their places in the prompt, or by cross-attention to the tiles of the image's canvas
 * (Llama 3.2 Vision). Throws PromptError where the image is no grid of patches.
 */
export function patchKeys(model: ModelOutline, prompt: Prompt, name = "image"): PatchKeys {
  const { vision, cross } = model.config;
  const index = indexOfImage(prompt, name);
  const layouts = vision ? picturesOf(prompt).map((picture) => vision.layout(picture)) : [];
  const { canvas } = layouts[index] ?? {};
  if (!canvas) {
    const patches = imagePatches(prompt, name);
    return { site: "pattern", layers: allLayers(model), grid: patches.grid, keys: patchPositions(patches) };
  }
  const { tiles, each } = canvas;
  const start = vision!.contextRows!(layouts)[index]![0]!.start;
  const grid = { rows: tiles.rows * each.rows, columns: tiles.columns * each.columns };
  const ofTile = 1 + each.rows * each.columns; // its class token is first
  const keys = Array.from({ length: grid.rows * grid.columns }, (_, i) => {
    const [row, column] = [Math.floor(i / grid.columns), i % grid.columns];
    const tile = Math.floor(row / each.rows) * tiles.columns + Math.floor(column / each.columns);
    return start + tile * ofTile + 1 + (row % each.rows) * each.columns + (column % each.columns);
  });
  return { site: "xattn_pattern", layers: cross!.layers, grid, keys };
}

/** Which of the prompt's pictures a span is of; they stand in the order of their positions. */
function indexOfImage(prompt: Prompt, name: string): number {
  const { start } = prompt.span(name);
  return Object.entries(prompt.spans).filter(([key, span]) => /^image\d*$/.test(key) && span.start < start)
    .length;
}

/**
 * Attention from a token to the patches of an image, a map a layer. Throws PromptError when the prompt has no such image
 * or position, SiteError when the model has no such layer or head.
 */
export async function attentionMaps(
  model: LanguageModel,
  prompt: Prompt,
  options: AttentionMapOptions = {},
): Promise<AttentionMap[]> {
  checkMaps("attentionMaps", model, prompt, options, {
    ...MAP_OPTIONS,
    head: either(aNumber, oneOf("each")),
  });
  const { at = -1, span, head } = options;
  const { site, grid, keys, ...those } = patchKeys(model, prompt, span);
  const { layers = those.layers } = options;
  checkLayers(model, layers, "attention maps");
  const { device } = model;
  const scope = device.openScope();
  try {
    const rows = scope.enter(() => {
      const part = typeof head === "number" ? { head } : {};
      const taps = Object.fromEntries(layers.map((layer) => [`${layer}`, tap(`${site}.${layer}`, at, part)]));
      const tapped = run(model, prompt, { taps, stopAfter: Math.max(...layers) });
      return layers.map((layer) => {
        const row = tapped[`${layer}`]!; // [heads, keys], or [keys] of one head
        return row.rank === 1 || head === "each" ? row : mean(row, 0);
      });
    });
    const read = await device.read(rows);
    const setting = settingOf(model);
    return layers.flatMap((layer, i) => {
      if (head !== "each") return mapOf(setting, { grid, keys }, layer, read[i]!, head);
      const [heads, width] = rows[i]!.shape as [number, number];
      return Array.from({ length: heads }, (_, h) =>
        mapOf(setting, { grid, keys }, layer, read[i]!.subarray(h * width, (h + 1) * width), h),
      );
    });
  } finally {
    scope.dispose();
  }
}

/** Which token, picture and layers {@link rolloutMaps} gives maps of. */
export interface RolloutOptions extends Omit<AttentionMapOptions, "head"> {
  /** Called after each layer with the number of layers computed; the device is then waited for layer by layer. What it throws ends the rollout. */
  onProgress?: (done: number) => void;
}

/**
 * The same for attention rollout (see `rollout`) from the embedding up to each of the layers. Throws PromptError and
 * SiteError.
 */
export async function rolloutMaps(
  model: PatchableModel,
  prompt: Prompt,
  options: RolloutOptions = {},
): Promise<AttentionMap[]> {
  checkMaps("rolloutMaps", model, prompt, options, { ...MAP_OPTIONS, onProgress: aFunction });
  const { at = -1, span, layers = allLayers(model), onProgress } = options;
  const { site, grid, keys } = patchKeys(model, prompt, span);
  if (site !== "pattern") {
    throw new PromptError(
      "attention rollout goes from token to token, and this model reads pictures by cross-attention; expected maps of single layers",
    );
  }
  checkLayers(model, layers, "attention maps");
  const [position] = resolvePositions(at, prompt);
  const { device } = model;
  const scope = device.openScope();
  try {
    const patterns = await meanPatterns(model, prompt, Math.max(...layers), scope, onProgress);
    const rows = scope.enter(() => layers.map((layer) => rollout(patterns.slice(0, layer + 1), position!)));
    const read = await device.read(rows);
    return layers.map((layer, i) => mapOf(settingOf(model), { grid, keys }, layer, read[i]!));
  } finally {
    scope.dispose();
  }
}

/** The mean pattern of the heads of each layer up to `last`, [1, rows, rows]: a whole pattern lives for one layer. */
async function meanPatterns(
  model: PatchableModel,
  prompt: Prompt,
  last: number,
  scope: Scope,
  onProgress?: (done: number) => void,
): Promise<Tensor[]> {
  const patterns: Tensor[] = [];
  const walk = scope.enter(() => model.walk(prompt, (site: SiteName) => site.startsWith("pattern.")));
  try {
    while (patterns.length <= last) {
      const step = scope.enter(() => {
        const next = walk.next();
        if (!next.done) patterns.push(mean(next.value.value, 0, { keepDims: true }));
        return next;
      });
      if (step.done) break;
      if (!onProgress) continue;
      await model.device.sync();
      onProgress(patterns.length);
    }
  } finally {
    scope.enter(() => walk.return(undefined as never));
  }
  return patterns;
}

function mapOf(
  setting: Setting,
  { grid, keys }: Pick<PatchKeys, "grid" | "keys">,
  layer: number,
  row: ArrayLike<number>,
  head?: number,
): AttentionMap {
  const weights = Float32Array.from(keys, (key) => row[key]!);
  const share = weights.reduce((sum, weight) => sum + weight, 0);
  return new PictureAttention({ setting, layer, ...(head !== undefined && { head }), grid, weights, share });
}

const MAP_OPTIONS: Options<Omit<AttentionMapOptions, "head">> = {
  at: onePosition,
  span: aString,
  layers: aListOf(aNumber),
};

function checkMaps<T>(
  call: string,
  model: unknown,
  prompt: unknown,
  options: unknown,
  known: Options<T>,
): void {
  checkArgument(call, "model", model, aModel);
  checkArgument(call, "prompt", prompt, aPrompt);
  checkOptions(call, options, known);
}
