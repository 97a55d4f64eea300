import type { PixelValues } from "../../../images/preprocess.ts";
import type { ProcessorSettings } from "../../../images/processor-config.ts";
import type { RgbImage } from "../../../images/rgb.ts";

/** A picture: as decoded, or already preprocessed by the caller. */
export type Picture = RgbImage | PixelValues;

/** How one picture goes through a model. */
export interface ImageLayout {
  /** Its rows in the vision tower, those of all tiles. */
  readonly towerRows: number;
  /** Features that the language model gets of it, each at a position of the prompt. */
  readonly tokens: number;
  /** Set where those are consecutive and one plain grid. */
  readonly grid?: { readonly rows: number; readonly columns: number };
  /** Which of its features each group of its tower rows becomes, where that is not the order of the rows. */
  readonly order?: readonly number[];
}

/** What is known of every vision tower. */
export interface TowerConfig {
  /** What to call it. */
  readonly kind: string;
  readonly layers: number;
  readonly width: number;
  readonly heads: number;
  readonly mlpWidth: number;
  /** Side of a patch, in pixels. */
  readonly patchSize: number;
  /** Side of the picture in pixels, where all are made squares of one size. */
  readonly imageSize?: number;
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
  /** The layout of every picture, where all have the same. */
  readonly fixed?: ImageLayout;
  /** Throws ImageError for a picture that the model cannot take. */
  layout(picture: Picture): ImageLayout;
  /** Throws PromptError for a prompt with enough places for its pictures that means nothing to the model all the same. */
  check?(prompt: { readonly ids: readonly number[]; readonly images: readonly unknown[] }): void;
  readonly processor: ProcessorSettings;
}
