import {
  aCount,
  aFunction,
  aKindOf,
  aListOf,
  aNumber,
  anArray,
  checkArgument,
  checkOptions,
  type Expected,
  type Options,
  oneOf,
} from "../../arguments.ts";
import { SiteError } from "../../errors.ts";
import { softmax } from "../../kernels/reduction/softmax.ts";
import { topK } from "../../kernels/reduction/top-k.ts";
import type { LanguageModel } from "../../model/language-model.ts";
import type { Prompt } from "../../model/prompt/prompt.ts";
import { RowMap } from "../../model/walk/row-map.ts";
import { NO_VISITOR, Sites } from "../../model/walk/site-events.ts";
import { siteInfo } from "../../model/walk/site-info.ts";
import { LAYER_SITES, type LayerSite } from "../../model/walk/sites.ts";
import { drive } from "../../model/walk/walk.ts";
import { aModel, aPrompt, checkEdits, somePositions } from "../../patching/arguments.ts";
import type { Edit } from "../../patching/edit.ts";
import { type Positions, resolvePositions } from "../../patching/positions.ts";
import { run } from "../../patching/run.ts";
import { settingOf } from "../../patching/setting.ts";
import { tap } from "../../patching/tap.ts";
import { Tensor } from "../../tensor/tensor.ts";
import { allLayers, checkLayers } from "../layers.ts";
import { tokenTexts } from "../token-texts.ts";
import { LensCells } from "./lens-cells.ts";

export type { LensCell, LensToken } from "./lens-cells.ts";

/**
 * Reads a residual stream through the model's final norm and unembedding (nostalgebraist 2020, "interpreting GPT: the
 * logit lens"). x: [rows, width] → logits [rows, vocab].
 */
export function decodeStream(model: LanguageModel, x: Tensor): Tensor {
  checkArgument("decodeStream", "model", model, aModel);
  checkArgument("decodeStream", "x", x, aKindOf(Tensor, "from a tap"));
  const { network } = model;
  return network.device.scope(() =>
    drive(network.head(x, new Sites(NO_VISITOR.uses, new RowMap([]))), NO_VISITOR),
  );
}

/** Sites whose values have the width of the residual stream, and so can be read through the unembedding. */
export const STREAM_SITES: ReadonlySet<LayerSite> = new Set([
  "resid_pre",
  "attn_in",
  "attn_out",
  "resid_mid",
  "mlp_in",
  "mlp_out",
  "resid_post",
]);

/** What {@link logitLens} reads, and how many tokens it names for each cell. */
export interface LensOptions {
  /** Which activation of each layer. Default resid_post. */
  site?: LayerSite;
  /** Token positions. Default: the last. */
  at?: Positions;
  /** Layers. Default: all. */
  layers?: readonly number[];
  /** Tokens per cell. Default 5. */
  k?: number;
  /** Edits that are in force as it is read. */
  edits?: readonly Edit[];
  /** Called after each layer with the number of layers read, which are then read one by one. */
  onProgress?: (done: number) => void;
}

/** How to read cells: {@link LensOptions} with the defaults in. */
export type LensReading = Required<Pick<LensOptions, "site" | "at" | "layers" | "k">> &
  Pick<LensOptions, "edits" | "onProgress">;

export const aCellCount: Expected = {
  words: "a whole number from 1",
  holds: (k) => aCount.holds(k) && k !== 0,
};

const OPTIONS: Options<LensOptions> = {
  site: oneOf(...LAYER_SITES),
  at: somePositions,
  layers: aListOf(aNumber),
  k: aCellCount,
  edits: anArray,
  onProgress: aFunction,
};

/** The logit lens over a prompt: a cell for each layer and position; `.table()` is its text. Throws SiteError and PromptError like `run`. */
export async function logitLens(
  model: LanguageModel,
  prompt: Prompt,
  options: LensOptions = {},
): Promise<LensCells> {
  checkArgument("logitLens", "model", model, aModel);
  checkArgument("logitLens", "prompt", prompt, aPrompt);
  checkOptions("logitLens", options, OPTIONS);
  const { site = "resid_post", at = -1, k = 5, edits = [], onProgress } = options;
  checkEdits("logitLens", edits);
  const layers = options.layers ?? allLayers(model);
  checkLayers(model, layers, "logit lens");
  if (!STREAM_SITES.has(site)) {
    const fitting = LAYER_SITES.filter((s) => STREAM_SITES.has(s)).join(", ");
    throw new SiteError(
      `logit lens: ${site} is not as wide as the residual stream; expected one of ${fitting}`,
    );
  }
  const reading = { site, at, layers, k, edits, onProgress };
  return readLens(model, prompt, reading, (x) => decodeStream(model, x));
}

/** The cells of a lens over a prompt, which reads rows x [positions, width] of a layer as logits [positions, vocab]. */
export async function readLens(
  model: LanguageModel,
  prompt: Prompt,
  { site, at, layers, k, edits = [], onProgress }: LensReading,
  decode: (x: Tensor, layer: number) => Tensor,
): Promise<LensCells> {
  const { device } = model;
  const taps = Object.fromEntries(layers.map((layer) => [`${layer}`, tap(`${site}.${layer}`, at)]));
  const scope = device.openScope();
  try {
    const tapped = scope.enter(() =>
      run(model, prompt, { taps, edits, stopAfter: lastLayer(layers, edits, model) }),
    );
    const cellsOf = (layer: number) =>
      scope.enter(() =>
        device.scope(() => {
          const rows = tapped[`${layer}`]!;
          const logits = decode(rows.rank === 1 ? rows.reshape([1, rows.size]) : rows, layer);
          const { values, indices } = topK(softmax(logits), k);
          return [values, indices];
        }),
      );
    const arrays = onProgress
      ? await oneByOne(layers, async (layer) => device.read(cellsOf(layer)), onProgress)
      : await device.read(layers.flatMap(cellsOf));
    const sequence = model.sequenceOf(prompt);
    const positions = resolvePositions(at, sequence);
    const cells = LensCells.over(tokenTexts(model.tokenizer, sequence), settingOf(model));
    for (const [l, layer] of layers.entries()) {
      for (const [p, position] of positions.entries()) {
        const tokens = Array.from({ length: k }, (_, i) => {
          const id = arrays[2 * l + 1]![p * k + i]!;
          return { id, text: model.tokenizer.decode([id]), probability: arrays[2 * l]![p * k + i]! };
        });
        cells.push({ layer, position, tokens });
      }
    }
    return cells;
  } finally {
    scope.dispose();
  }
}

/** The last layer that has to be computed: that of the cells, or of an edit behind it, which would not fire. */
function lastLayer(
  layers: readonly number[],
  edits: readonly Edit[],
  { sites, config }: LanguageModel,
): number | undefined {
  const last = Math.max(...layers, ...edits.map(({ site }) => siteInfo(sites, site).order));
  return last < config.layers ? last : undefined;
}

async function oneByOne<T>(
  layers: readonly number[],
  read: (layer: number) => Promise<readonly T[]>,
  onProgress: (done: number) => void,
): Promise<T[]> {
  const all: T[] = [];
  for (const [i, layer] of layers.entries()) {
    all.push(...(await read(layer)));
    onProgress(i + 1);
  }
  return all;
}
