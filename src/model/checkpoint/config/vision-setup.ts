import type { PixelValues } from "../../../images/preprocess.ts";
import type { ProcessorSettings } from "../../../images/processor-config.ts";
import type { RgbImage } from "../../../images/rgb.ts";
import type { VisionConfig } from "./vision-config.ts";

/** A picture: as decoded, or already preprocessed by the caller. */
export type Picture = RgbImage | PixelValues;

/** How one picture goes through a model. */
export interface ImageLayout {
  /** Its rows in the vision tower, those of all tiles. */
  readonly towerRows: number;
  /** How many tiles it is cut into, each of which goes through the tower by itself. Default 1. */
  readonly tiles?: number;
  /** Where there are tiles: features of all of them together, before they are laid out (site `tile_features`). */
  readonly tileFeatures?: number;
  /** Features that the language model gets of it, each at a position of the prompt. */
  readonly tokens: number;
  /** Set where those are consecutive and one plain grid. */
  readonly grid?: { readonly rows: number; readonly columns: number };
}

/** How a vision-language model takes pictures in. */
export interface VisionSetup {
  readonly tower: VisionConfig;
  /** Token that stands for an image, and for each of its features once expanded. */
  readonly imageToken: string;
  readonly imageTokenId: number;
  /** Blocks of the tower whose output is used; the number of blocks for the last one's. */
  readonly featureLayer: number;
  /** Whether the class token's row goes along. */
  readonly keepsClassToken: boolean;
  /** The tower's last norm goes over that output (site `vision.post_norm`). */
  readonly postNorm?: boolean;
  /** Pictures are cut into tiles. */
  readonly tiled?: boolean;
  /** The layout of every picture, where all have the same. */
  readonly fixed?: ImageLayout;
  /** Throws ImageError for a picture that the model cannot take. */
  layout(picture: Picture): ImageLayout;
  readonly processor: ProcessorSettings;
}
