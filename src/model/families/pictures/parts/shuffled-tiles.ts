import { CheckpointError, ImageError } from "../../../../errors.ts";
import type { GridProcessorSettings } from "../../../../images/processors/grid-processor-config.ts";
import { tileGrid } from "../../../../images/tile-grid.ts";
import type { Tensor } from "../../../../tensor/tensor.ts";
import {
  patchesPerSide,
  rowsPerImage,
  type SquareVisionSetup,
} from "../../../checkpoint/config/vision-config.ts";
import type { ImageLayout, Picture } from "../../../checkpoint/config/vision-setup.ts";
import { ConfigReader, type JsonObject } from "../../../checkpoint/json/config-reader.ts";
import type { ImageFeatures } from "../../../layers/bridges/image-decoder.ts";
import { pixelShuffle } from "../../../layers/bridges/pixel-shuffle.ts";
import { rowsOf, towerFeatures } from "../../../layers/towers/tower-features.ts";
import type { VisionTower } from "../../../layers/towers/vision-tower.ts";
import type { ImageText } from "../../../prompt/image-rules.ts";
import { passOverImages } from "../../../walk/input-passes.ts";
import type { FamilyFiles, TextFamily } from "../../family.ts";
import { textConfig } from "./llava-parts.ts";

// What Idefics3 and InternVL have in common: tiles that stand by themselves in the prompt, and squares of patches as features.

/** How a picture, as it is or cut into tiles, goes through the tower and into the prompt. */
export type ShuffledSetup = SquareVisionSetup & { readonly shuffle: number };

type Read = Omit<SquareVisionSetup, "layout" | "fixed" | "tiled" | "processor"> & {
  readonly shuffle: number;
};

/**
 * @param where config.json, for messages
 * @param factor the field that says how many patches a side become one feature
 */
export function shuffledSetup(
  read: Read,
  processor: GridProcessorSettings,
  { where, factor }: { where: string; factor: string },
): ShuffledSetup {
  const { tower, shuffle } = read;
  const side = patchesPerSide(tower);
  if (side % shuffle !== 0) {
    throw new CheckpointError(
      `${where}: expected a tower whose patches, ${side} a side, divide into squares of ${shuffle} a side (${factor}); there are ` +
        `image_size by patch_size a side`,
    );
  }
  if (processor.grid.side !== tower.imageSize) {
    throw new CheckpointError(
      `${where}: expected an image processor that makes pictures and tiles of ${tower.imageSize} pixels, as the tower takes ` +
        `them (image_size), found ${processor.grid.side}`,
    );
  }
  const each = side / shuffle;
  const layout = (picture: Picture): ImageLayout => {
    const grid = gridOf(picture, processor);
    const tiles = grid ? grid.rows * grid.columns + 1 : 1;
    return {
      tiles,
      towerRows: tiles * rowsPerImage(tower),
      tokens: tiles * each ** 2,
      ...(grid ? { tileGrid: grid } : { grid: { rows: each, columns: each } }),
    };
  };
  return { ...read, tiled: true, layout, processor };
}

/** How a picture is cut, or was by whoever made its pixel values. */
function gridOf(picture: Picture, { grid: settings }: GridProcessorSettings): ImageLayout["tileGrid"] {
  if (!("shape" in picture)) return tileGrid(picture, settings);
  const { count = 1, grid } = picture.tiling ?? {};
  const expected = grid ? grid.rows * grid.columns + 1 : 1;
  if (count === expected) return grid;
  throw new ImageError(
    `expected pixel values of ${expected} tile(s), as their tiling says (the tiles of its grid, and the whole), found ${count}`,
  );
}

/** The grids of a picture's positions, for `ImageText`. */
export function gridsOf(
  { layout, tower, shuffle }: ShuffledSetup,
  picture: Picture,
): Omit<ImageText, "text"> {
  const { grid, tileGrid } = layout(picture);
  const side = patchesPerSide(tower) / shuffle;
  if (!tileGrid) return { ...(grid && { grid }) };
  return { tiles: { grid: tileGrid, each: { rows: side, columns: side } } };
}

/** @param project [rows, width of the tower * shuffle²] → [rows, width] */
export function shuffledFeatures(
  tower: VisionTower,
  setup: ShuffledSetup,
  project: (x: Tensor) => Tensor,
): ImageFeatures {
  return function* (images, pass) {
    const read = yield* towerFeatures(tower, setup, images, pass); // [tiles * side², width of the tower]
    const own = passOverImages(
      pass,
      rowsOf(setup, ({ tokens }) => tokens),
    ).sites();
    const side = patchesPerSide(setup.tower);
    const squares = yield* own.pass("pixel_shuffle", pixelShuffle(read, side, setup.shuffle));
    return yield* own.pass("projector", project(squares));
  };
}

/** The language model of a text_config, one of `families`, the first of which it is where it says nothing. */
export function innerDecoder(
  config: JsonObject,
  where: string,
  families: readonly [TextFamily, ...TextFamily[]],
): { readonly family: TextFamily; readonly text: JsonObject } {
  const text = textConfig(config, where);
  const type = text["model_type"] ?? families[0].modelType;
  const family = families.find(({ modelType }) => modelType === type);
  if (family) return { family, text };
  throw new CheckpointError(
    `${where}: text_config: ${config["model_type"]} over ${JSON.stringify(type)} is not supported; supported are ` +
      families.map(({ modelType }) => modelType).join(", "),
  );
}

/**
 * The language model's config; whether embedding and head are tied is for the outer config to say.
 *
 * @param tied where that is silent
 */
export function readInnerDecoder(
  config: JsonObject,
  where: string,
  files: FamilyFiles,
  families: readonly [TextFamily, ...TextFamily[]],
  tied: boolean,
) {
  const { family, text } = innerDecoder(config, where, families);
  const tie_word_embeddings = new ConfigReader(config, where).boolean("tie_word_embeddings", tied);
  return family.readConfig({ ...text, tie_word_embeddings }, `${where}: text_config`, files);
}

/** Throws CheckpointError where processor_config.json says another number of positions for a tile than the tower makes. */
export function checkTileTokens(
  processor: unknown,
  field: string,
  { tower, shuffle }: ShuffledSetup,
  { where, factor }: { where: string; factor: string },
): void {
  const expected = (patchesPerSide(tower) / shuffle) ** 2;
  const said = (processor as JsonObject | undefined)?.[field];
  if (said === undefined || said === null || said === expected) return;
  throw new CheckpointError(
    `${where}: expected ${field} of processor_config.json to be ${expected}, as many features as a tile has ` +
      `(image_size, patch_size, ${factor}), found ${JSON.stringify(said)}`,
  );
}
