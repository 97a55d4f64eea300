import type { RgbImage } from "../../../images/files/rgb.ts";
import type { PixelValues } from "../../../images/preprocess.ts";
import type { ProcessorSettings } from "../../../images/processors/processor-config.ts";
import type { TileGrid } from "../../../images/tile-grid.ts";
import type { ActivationKind } from "../../../kernels/elementwise/activation.ts";

/** A picture: as decoded, or already preprocessed by the caller. */
export type Picture = RgbImage | PixelValues;

/** How one picture goes through a model. */
export interface ImageLayout {
  /** Its rows in the vision tower, those of all tiles. */
  readonly towerRows: number;
  /** How many tiles it is cut into, each of which goes through the tower by itself. Default 1. */
  readonly tiles?: number;
  /** The patches of each tile (or of the picture) in the tower, row by row, where pictures keep sizes of their own. */
  readonly patchGrids?: readonly { readonly rows: number; readonly columns: number }[];
  /** Where there are tiles: features of all of them together, before they are laid out (site `tile_features`). */
  readonly tileFeatures?: number;
  /** Positions of the prompt that stand for it, each of which takes a feature unless those go elsewhere. */
  readonly tokens: number;
  /** Its rows in the resampler, those of all tiles, or queries of the Q-Former; absent where there is neither. */
  readonly latents?: number;
  /** How many of these, the first ones, are of tiles that it has; the others are of those that it has not. */
  readonly ownLatents?: number;
  /** Set where those are tiles of a canvas, row by row, of each its class token and then its patches: how they lie, and each's grid. */
  readonly canvas?: { readonly tiles: TileGrid; readonly each: TileGrid };
  /** Set where those are one plain grid, which may have positions of no feature behind each row. */
  readonly grid?: { readonly rows: number; readonly columns: number };
  /** Where tiles are one map behind the whole picture: the grids of both, see `ImageText`. */
  readonly parts?: { readonly whole: TileGrid; readonly map?: TileGrid };
  /** Where each tile has places of its own: how the tiles lie, the whole picture behind them. Absent where that is all. */
  readonly tileGrid?: TileGrid;
  /** Which of its features each group of its tower rows becomes, where that is not the order of the rows. */
  readonly order?: readonly number[];
}

/** What is known of every vision tower. */
export interface TowerConfig {
  /** What to call it. */
  readonly kind: string;
  /** 0 where there is no tower: the patches' pixels are projected as they are (Fuyu). */
  readonly layers: number;
  readonly width: number;
  readonly heads: number;
  readonly mlpWidth: number;
  /** Norms on queries and keys. */
  readonly qkNorm?: boolean;
  /** Side of a patch, in pixels. */
  readonly patchSize: number;
  /** Side of the picture in pixels, where all are made squares of one size. */
  readonly imageSize?: number;
}

/**
 * What the rows of a picture may be: those of the tower, of the prompt, of the resampler (the queries of a Q-Former), what the
 * resampler attends to, or the Q-Former's queries and the text that it reads beside.
 */
export type ImageRows =
  | "tower"
  | "tile features"
  | "tokens"
  | "latents"
  | "tower and latents"
  | "latents and text";

/** What of a layout says how many. */
export interface ImageRowCounts
  extends Pick<ImageLayout, "towerRows" | "tileFeatures" | "tokens" | "latents"> {
  /** Tokens of its prompt that a Q-Former reads beside it. */
  readonly text?: number;
}

/** The rows of each picture of a prompt. */
export function imageRowCounts(
  { layout, textOf }: Pick<VisionSetup, "layout" | "textOf">,
  prompt: { readonly images: readonly unknown[]; readonly instruction?: readonly number[] | undefined },
): ImageRowCounts[] {
  const text = textOf?.(prompt).length;
  return prompt.images.map((image) => ({ ...layout(image as Picture), ...(text !== undefined && { text }) }));
}

/** How many of them a picture has. */
export function imageRowCount(
  { towerRows, tileFeatures = 0, tokens, latents = 0, text = 0 }: ImageRowCounts,
  rows: ImageRows,
): number {
  switch (rows) {
    case "tower":
      return towerRows;
    case "tile features":
      return tileFeatures;
    case "tokens":
      return tokens;
    case "latents":
      return latents;
    case "tower and latents":
      return towerRows + latents;
    case "latents and text":
      return latents + text;
  }
}

/** The rows of each tile in the tower. */
export function tileRows({ towerRows, tiles = 1, patchGrids }: ImageLayout): number[] {
  if (patchGrids) return patchGrids.map(({ rows, columns }) => rows * columns);
  return new Array<number>(tiles).fill(towerRows / tiles);
}

/** A stack whose learned rows read a picture, so that each picture becomes as many rows (a perceiver resampler). */
export interface ResamplerConfig {
  readonly layers: number;
  /** Of a picture, or of a tile of it. */
  readonly latents: number;
  readonly width: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly mlpWidth: number;
  /** Norms on queries and keys. */
  readonly qkNorm: boolean;
  /** What it reads is not the tower's rows, but what a projection makes of them (site `resampler.in`). */
  readonly projects?: boolean;
}

/** Whether the features of tiles are laid out as one map (site `tile_features`), not tile by tile. */
export function hasTileMap({ tiled = false, shuffle }: Pick<VisionSetup, "tiled" | "shuffle">): boolean {
  return tiled && shuffle === undefined;
}

/** A stack whose learned queries read a picture by cross-attention, and each other, so that each picture becomes as many rows. */
export interface QFormerConfig {
  readonly layers: number;
  readonly queries: number;
  readonly width: number;
  readonly heads: number;
  readonly mlpWidth: number;
  readonly normEps: number;
  readonly activation: ActivationKind;
  /** The layers that read the picture. */
  readonly crossLayers: readonly number[];
  /** Sizes of the embedding of the text that it reads beside the picture; absent where it reads none. */
  readonly text?: { readonly vocab: number; readonly context: number };
}

/** How a vision-language model takes pictures in. */
export interface VisionSetup<Tower extends TowerConfig = TowerConfig> {
  readonly tower: Tower;
  /** Token that stands for an image, and for each of its features once expanded. */
  readonly imageToken: string;
  readonly imageTokenId: number;
  /** Blocks of the tower whose output is used; the number of blocks for the last one's. */
  readonly featureLayer: number;
  /** Whether the class token's row goes along, where there is one. */
  readonly keepsClassToken?: boolean;
  /** Set where the features go through one. */
  readonly resampler?: ResamplerConfig;
  readonly qformer?: QFormerConfig;
  /** What a Q-Former reads of a prompt beside its pictures: ids of a tokenizer of its own. */
  textOf?(prompt: { readonly instruction?: readonly number[] | undefined }): readonly number[];
  /** A second encoder on top of the tower. */
  readonly global?: Pick<TowerConfig, "layers" | "width" | "heads" | "mlpWidth">;
  /** Width of what the projector reads of both (site `vision.features`). */
  readonly featureWidth?: number;
  /**
   * Where the rows of each of a prompt's pictures lie among those that cross-attention reads. Default: one picture after the
   * other.
   */
  contextRows?(layouts: readonly ImageLayout[]): readonly (readonly { start: number; end: number }[])[];
  /** Whether features take the places of image tokens in the embedding (default), or reach the language model otherwise. */
  readonly embeds?: boolean;
  /** Behind how many layers of the language model, from the first, further features are added at the same places. */
  readonly deepstack?: number;
  /** Whether the tokens of a picture attend to all of it, not only to those before them. */
  readonly wholePictures?: boolean;
  /** The tower's last norm goes over that output (site `vision.post_norm`). */
  readonly postNorm?: boolean;
  /** Pictures are cut into tiles. */
  readonly tiled?: boolean;
  /** Each square of so many patches a side becomes one feature, which has the patches side by side (site `pixel_shuffle`). */
  readonly shuffle?: number;
  /** Each square of so many patches a side becomes one feature, their mean (site `pooled`), which is normed (`projector_norm`). */
  readonly pooled?: number;
  /** The layout of every picture, where all have the same. */
  readonly fixed?: ImageLayout;
  /** Throws ImageError for a picture that the model cannot take. */
  layout(picture: Picture): ImageLayout;
  /** Throws PromptError for a prompt with enough places for its pictures that means nothing to the model all the same. */
  check?(prompt: {
    readonly ids: readonly number[];
    readonly images: readonly unknown[];
    readonly instruction?: readonly number[] | undefined;
  }): void;
  readonly processor: ProcessorSettings;
}
