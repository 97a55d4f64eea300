import { CheckpointError, ImageError } from "../../../../errors.ts";
import type { Size } from "../../../../images/processors/processor-config.ts";
import { asSizes, readTiledProcessorConfig } from "../../../../images/processors/tiled-processor-config.ts";
import { bestPinpoint, type TileSettings } from "../../../../images/tiles.ts";
import { concat } from "../../../../kernels/movement/concat.ts";
import { cast } from "../../../../kernels/movement/copy.ts";
import type { Tensor } from "../../../../tensor/tensor.ts";
import {
  patchesPerSide,
  rowsPerImage,
  type SquareVisionSetup,
} from "../../../checkpoint/config/vision-config.ts";
import type { ImageLayout, Picture } from "../../../checkpoint/config/vision-setup.ts";
import type { JsonObject } from "../../../checkpoint/json/config-reader.ts";
import { findPrefix } from "../../../checkpoint/weights/find-prefix.ts";
import type { Weights } from "../../../checkpoint/weights/weights.ts";
import { ImageDecoder } from "../../../layers/bridges/image-decoder.ts";
import { betweenCentres, resampled } from "../../../layers/towers/position-table.ts";
import { rowsOf, towerFeatures } from "../../../layers/towers/tower-features.ts";
import type { ImageRules } from "../../../prompt/image-rules.ts";
import { type PromptImage, pictureAmong } from "../../../prompt/prompt-image.ts";
import { takeRows } from "../../../walk/forward.ts";
import { passOverImages } from "../../../walk/input-passes.ts";
import { type LlavaConfig, type LlavaTower, readLlavaParts } from "./llava-parts.ts";

// What LLaVA-NeXT and LLaVA-OneVision have in common: pictures cut into tiles, whose features are laid out as one map.

/** The tiles of a picture as one map of features, a feature a patch, of which the padding's are cut off. */
export interface FeatureMap {
  /** Tiles beside each other, and below each other. */
  readonly tileColumns: number;
  readonly tileRows: number;
  /** What is left of the map. */
  readonly left: number;
  readonly top: number;
  readonly columns: number;
  readonly rows: number;
}

/** As transformers' `unpad_image` cuts it. `side`: patches of a tile. */
export function featureMap(
  { width, height }: Size,
  { side: pixels, pinpoints }: TileSettings,
  side: number,
): FeatureMap {
  const canvas = bestPinpoint({ width, height }, pinpoints);
  const tileColumns = canvas.width / pixels;
  const tileRows = canvas.height / pixels;
  const columns = tileColumns * side;
  const rows = tileRows * side;
  // Rounded before it is cut, lest 3 comes out as 2.9999999996.
  const whole = (length: number) => Math.trunc(Number(length.toFixed(7)));
  if (width / height > columns / rows) {
    const top = Math.floor((rows - whole(height * (columns / width))) / 2);
    return { tileColumns, tileRows, left: 0, top, columns, rows: rows - 2 * top };
  }
  const left = Math.floor((columns - whole(width * (rows / height))) / 2);
  return { tileColumns, tileRows, left, top: 0, columns: columns - 2 * left, rows };
}

/** For each place of the map, the feature that it gets, by its number among those of all tiles. `side`: patches of a tile. */
function mapPlaces(map: FeatureMap, side: number): number[] {
  return Array.from({ length: map.rows * map.columns }, (_, i) => {
    const row = map.top + Math.floor(i / map.columns);
    const column = map.left + (i % map.columns);
    const tile = 1 + Math.floor(row / side) * map.tileColumns + Math.floor(column / side);
    return (tile * side + (row % side)) * side + (column % side);
  });
}

/** Features row by row, `newline` behind each; of a very narrow picture no column may be left. */
function inLines(features: readonly number[], { rows, columns }: Grid, newline: number): number[] {
  return Array.from({ length: rows }, (_, row) => [
    ...features.slice(row * columns, (row + 1) * columns),
    newline,
  ]).flat();
}

/** For each place of a picture, the feature that it gets, by its number among those of all tiles; `newline` ends each row of the map. */
export function placesOf(map: FeatureMap, side: number, newline: number): number[] {
  const whole = Array.from({ length: side * side }, (_, i) => i);
  return [...whole, ...inLines(mapPlaces(map, side), map, newline)];
}

/** What a map has more than so many tiles' features of is shrunk to them ("anyres_max"), as transformers has it. */
export function shrunk({ rows, columns }: Grid, side: number, most: number | undefined): Grid {
  if (most === undefined) return { rows, columns };
  const ratio = Math.sqrt((rows * columns) / (most * side ** 2));
  if (ratio <= 1.1) return { rows, columns };
  return { rows: floorDivided(rows, ratio), columns: floorDivided(columns, ratio) };
}

/** Python's `a // b`, which does not go by the rounded quotient. */
function floorDivided(a: number, b: number): number {
  return Math.round((a - (a % b)) / b);
}

interface Grid {
  readonly rows: number;
  readonly columns: number;
}

/** The size that a picture had before it was cut into tiles; undefined for one that was not cut. */
function sizeOf(picture: Picture, { onlyAlone }: TileSettings): Size | undefined {
  if (!("shape" in picture)) return onlyAlone && picture.whole ? undefined : picture;
  if (picture.tiling || onlyAlone) return picture.tiling;
  throw new ImageError(
    "expected pixel values of a picture and its tiles, with the size that it had (tiling), found those of one square",
  );
}

/** How pictures go through the tower and into the prompt. */
export interface TiledSetup extends SquareVisionSetup {
  /** Tiles whose features a map may have before it is shrunk. Default: any number. */
  readonly mostTiles?: number;
}

export interface TiledConfig extends LlavaConfig {
  readonly vision: TiledSetup;
}

/**
 * @param pinpoints `image_grid_pinpoints`, where the config is silent
 * @param strategy what the tower's setup has beside
 */
export function readTiledSetup(
  config: JsonObject,
  where: string,
  { strategy, preprocessor, ...setup }: LlavaTower,
  { pinpoints, mostTiles }: { pinpoints: readonly (readonly number[])[]; mostTiles?: number },
): TiledSetup {
  const processor = readTiledProcessorConfig(preprocessor);
  const { tiles } = processor;
  const { imageSize } = setup.tower;
  if (tiles.side !== imageSize) {
    throw new CheckpointError(
      `${where}: expected tiles (crop_size of the image processor) of ${imageSize} pixels, as the tower takes them, found ${tiles.side}`,
    );
  }
  const key = "image_grid_pinpoints";
  const own = asSizes(config[key] ?? pinpoints, imageSize);
  if (JSON.stringify(own) !== JSON.stringify(tiles.pinpoints)) {
    throw new CheckpointError(
      `${where}: expected ${key} to be those of the image processor, found ${JSON.stringify(config[key])}`,
    );
  }
  const side = patchesPerSide(setup.tower);
  const rows = rowsPerImage(setup.tower);
  if (rows - (strategy === "full" ? 0 : 1) !== side * side) {
    throw new CheckpointError(
      `${where}: vision_feature_select_strategy ${JSON.stringify(strategy)} of a ${setup.tower.kind} tower leaves no square of features`,
    );
  }
  const layout = (picture: Picture): ImageLayout => {
    const size = sizeOf(picture, tiles);
    const map = size && featureMap(size, tiles, side);
    const count = map ? 1 + map.tileRows * map.tileColumns : 1;
    const shown = map && shrunk(map, side, mostTiles);
    return {
      tiles: count,
      towerRows: count * rows,
      tileFeatures: count * side * side,
      tokens: side * side + (shown ? shown.rows * (shown.columns + 1) : 1),
      parts: {
        whole: { rows: side, columns: side },
        ...(shown && shown.columns > 0 && { map: { rows: shown.rows, columns: shown.columns } }),
      },
    };
  };
  return { ...setup, tiled: true, layout, processor, ...(mostTiles !== undefined && { mostTiles }) };
}

export function tiledImageRules(setup: TiledSetup): ImageRules<PromptImage> {
  return {
    placeholder: setup.imageToken,
    among: (image, count) => pictureAmong(image, count, setup.processor),
    expand(image) {
      const { tokens, parts } = setup.layout(image);
      return { text: setup.imageToken.repeat(tokens), ...(parts && { parts }) };
    },
  };
}

export async function buildTiled(w: Weights, config: TiledConfig, json: JsonObject): Promise<ImageDecoder> {
  const setup = config.vision;
  const { decoder, tower, project } = await readLlavaParts(w, config, json);
  const prefix = findPrefix(w, ["", "model."], "image_newline");
  const newline = await w.tensor(`${prefix}image_newline`, [config.width]);
  return new ImageDecoder(decoder, setup, function* (images, pass) {
    const projected = project(yield* towerFeatures(tower, setup, images, pass)); // [tiles * side², width]
    const ofTiles = passOverImages(
      pass,
      rowsOf(setup, ({ tileFeatures }) => tileFeatures!),
    ).sites();
    const features = yield* ofTiles.pass("tile_features", projected);
    const own = passOverImages(
      pass,
      rowsOf(setup, ({ tokens }) => tokens),
    );
    return yield* own.sites().pass("projector", placed(features, images, setup, newline));
  });
}

/** The features of pictures in the order of their places, [tiles * side², width] → [places, width]. `newline`: [width] */
function placed(
  features: Tensor,
  images: readonly PromptImage[],
  setup: TiledSetup,
  newline: Tensor,
): Tensor {
  const side = patchesPerSide(setup.tower);
  const { tiles } = setup.processor;
  const [count, width] = features.shape as [number, number];
  // Behind the features come the newline, and then the maps that were shrunk.
  const sources = [features, cast(newline, "f32").reshape([1, width])];
  let end = count + 1;
  let start = 0;
  const rows = images.flatMap((image) => {
    const first = start;
    start += setup.layout(image).tileFeatures!;
    const size = sizeOf(image, tiles!);
    const whole = Array.from({ length: side * side }, (_, i) => first + i);
    if (!size) return [...whole, count];
    const map = featureMap(size, tiles!, side);
    const shown = shrunk(map, side, setup.mostTiles);
    let places = mapPlaces(map, side).map((place) => first + place);
    if (shown.rows !== map.rows || shown.columns !== map.columns) {
      sources.push(resampled(takeRows(features, places), shown, betweenCentres, map));
      places = Array.from({ length: shown.rows * shown.columns }, (_, i) => end + i);
      end += places.length;
    }
    return [...whole, ...inLines(places, shown, count)];
  });
  return takeRows(concat(sources), rows);
}
