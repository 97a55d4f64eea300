import { CheckpointError, ImageError } from "../../errors.ts";
import type { Size } from "../../images/processor-config.ts";
import {
  asSizes,
  LLAVA_NEXT_PINPOINTS,
  readTiledProcessorConfig,
} from "../../images/tiled-processor-config.ts";
import { bestPinpoint, type TileSettings } from "../../images/tiles.ts";
import { concat } from "../../kernels/movement/concat.ts";
import { cast } from "../../kernels/movement/copy.ts";
import { requireNeutral } from "../checkpoint/config/neutral-fields.ts";
import { patchesPerSide, rowsPerImage, type SquareVisionSetup } from "../checkpoint/config/vision-config.ts";
import type { ImageLayout, Picture } from "../checkpoint/config/vision-setup.ts";
import type { JsonObject } from "../checkpoint/json/config-reader.ts";
import { findPrefix } from "../checkpoint/weights/find-prefix.ts";
import { ImageDecoder } from "../layers/image-decoder.ts";
import { rowsOf, towerFeatures } from "../layers/tower-features.ts";
import { takeRows } from "../walk/forward.ts";
import { passOverImages } from "../walk/input-passes.ts";
import type { Family } from "./family.ts";
import { llavaImageRules } from "./llava.ts";
import {
  type LlavaConfig,
  llavaProcessor,
  readLlavaDecoder,
  readLlavaParts,
  readLlavaTower,
} from "./llava-parts.ts";

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

/** For each place of a picture, the feature that it gets, by its number among those of all tiles; `newline` ends each row of the map. */
export function placesOf(map: FeatureMap, side: number, newline: number): number[] {
  const places = Array.from({ length: side * side }, (_, i) => i); // the whole picture
  for (let row = map.top; row < map.top + map.rows; row++) {
    for (let column = map.left; column < map.left + map.columns; column++) {
      const tile = 1 + Math.floor(row / side) * map.tileColumns + Math.floor(column / side);
      places.push((tile * side + (row % side)) * side + (column % side));
    }
    places.push(newline);
  }
  return places;
}

/** The size that a picture had before it was cut into tiles. */
function sizeOf(picture: Picture): Size {
  const size = "shape" in picture ? picture.tiling : picture;
  if (size) return size;
  throw new ImageError(
    "expected pixel values of a picture and its tiles, with the size that it had (tiling), found those of one square",
  );
}

function readSetup(
  config: JsonObject,
  where: string,
  tower: ReturnType<typeof readLlavaTower>,
): SquareVisionSetup {
  const { strategy, preprocessor, ...setup } = tower;
  const processor = readTiledProcessorConfig(preprocessor);
  const { tiles } = processor;
  const { imageSize } = setup.tower;
  if (tiles.side !== imageSize) {
    throw new CheckpointError(
      `${where}: expected tiles (crop_size of the image processor) of ${imageSize} pixels, as the tower takes them, found ${tiles.side}`,
    );
  }
  const key = "image_grid_pinpoints";
  const own = asSizes(config[key] ?? LLAVA_NEXT_PINPOINTS, imageSize);
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
    const map = featureMap(sizeOf(picture), tiles, side);
    const count = 1 + map.tileRows * map.tileColumns;
    return {
      tiles: count,
      towerRows: count * rows,
      tileFeatures: count * side * side,
      tokens: side * side + map.rows * (map.columns + 1),
    };
  };
  return { ...setup, tiled: true, layout, processor };
}

/**
 * LLaVA-NeXT (Liu et al. 2024), also called LLaVA-1.6: LLaVA with pictures cut into tiles. The features of the whole picture
 * come first, then those of the tiles as one map, with a learned feature behind each of its rows.
 */
export const llavaNext: Family<LlavaConfig> = {
  modelType: "llava_next",
  readConfig(config, where, files) {
    // Read from here by this class, where null is true.
    requireNeutral({ ...config, is_causal: config["is_causal"] ?? true }, where, ["is_causal"]);
    const vision = readSetup(config, where, readLlavaTower(config, where, files));
    return { ...readLlavaDecoder(config, where, files), vision };
  },
  imageRules: ({ vision }) => llavaImageRules(vision),
  processor: ({ vision }) => llavaProcessor("LlavaNextProcessor", vision),
  async build(w, config, json) {
    const setup = config.vision;
    const { decoder, tower, project } = await readLlavaParts(w, config, json);
    const newline = await w.tensor(`${findPrefix(w, ["", "model."], "image_newline")}image_newline`, [
      config.width,
    ]);
    const side = patchesPerSide(setup.tower);
    return new ImageDecoder(decoder, setup, function* (images, pass) {
      const projected = project(yield* towerFeatures(tower, setup, images, pass)); // [tiles * side², width]
      const ofTiles = passOverImages(
        pass,
        rowsOf(setup, ({ tileFeatures }) => tileFeatures!),
      ).sites();
      const features = yield* ofTiles.pass("tile_features", projected);
      const count = features.dim(0);
      let first = 0;
      const rows = images.flatMap((image) => {
        const start = first;
        first += setup.layout(image).tileFeatures!;
        const map = featureMap(sizeOf(image), setup.processor.tiles!, side);
        return placesOf(map, side, count - start).map((place) => start + place);
      });
      const row = cast(newline, "f32").reshape([1, config.width]);
      const places = takeRows(concat([features, row]), rows);
      const own = passOverImages(
        pass,
        rowsOf(setup, ({ tokens }) => tokens),
      );
      return yield* own.sites().pass("projector", places);
    });
  },
};
