import { patchRows, placesInBlocks } from "../../../images/patch-rows.ts";
import type { PixelValues } from "../../../images/preprocess.ts";
import { linear } from "../../../kernels/matmul/linear.ts";
import { gatherRows } from "../../../kernels/movement/gather.ts";
import type { Device } from "../../../tensor/device.ts";
import type { Tensor } from "../../../tensor/tensor.ts";
import type { EncoderConfig } from "../../checkpoint/config/encoder-config.ts";
import {
  type Picture,
  type TowerConfig,
  tileRows,
  type VisionSetup,
} from "../../checkpoint/config/vision-setup.ts";
import type { Weights } from "../../checkpoint/weights/weights.ts";
import { pixelValues } from "../../prompt/prompt-image.ts";
import { passOverImages } from "../../walk/input-passes.ts";
import { partsOf } from "../../walk/masks.ts";
import { Stack } from "../../walk/stack.ts";
import type { ImageFeatures } from "../bridges/image-decoder.ts";
import { readLayerNorm } from "../norm.ts";
import { readEncoderBlocks } from "./encoder-blocks.ts";
import { fractionalPlaces } from "./fractional-places.ts";

/** A SigLIP tower over pictures of any size. */
export interface NativeSizeTowerConfig extends EncoderConfig, TowerConfig {
  readonly channels: number;
  /** Rows and columns of the grid of learned positions. */
  readonly positionsPerSide: number;
}

/**
 * SigLIP's tower as Idefics 2 has it, over pictures of any size (NaViT, Dehghani et al. 2023, arXiv 2307.06304): patches that
 * are whole, with the learned position at their place in the picture; each tile sees only itself. Under `prefix` in Hugging
 * Face's names. Gives the rows after the last norm, [rows of all tiles, width]. Sites: vision.*.
 */
export async function readNativeSizeTower(
  w: Weights,
  setup: VisionSetup<NativeSizeTowerConfig>,
  prefix: string,
): Promise<ImageFeatures> {
  const { tower, layout } = setup;
  const { width, channels, patchSize: size, positionsPerSide: side, normEps } = tower;
  const embeddings = `${prefix}embeddings.`;
  const kernel = await w.tensor(`${embeddings}patch_embedding.weight`, [width, channels, size, size]);
  const patchWeight = w.reshape(kernel, [width, channels * size * size]);
  const bias = await w.tensor(`${embeddings}patch_embedding.bias`, [width]);
  const positions = await w.tensor(`${embeddings}position_embedding.weight`, [side * side, width]);
  const rule = partsOf((image) => tileRows(layout(image)).map((rows) => ({ rows, keys: rows })));
  const stack = new Stack(w.device, await readEncoderBlocks(w, prefix, tower, rule));
  const postNorm = await readLayerNorm(w, `${prefix}post_layernorm`, width, normEps);
  return function* (images, pass) {
    const { device } = pass;
    const own = passOverImages(pass, (image) => layout(image).towerRows);
    const embedded = device.scope(() => {
      const patches = pass.pixels(uploadPatches(device, images, setup)); // [rows, channels * size * size]
      const ids = device.tensor(positionIds(images, setup), { dtype: "u32" });
      return linear(patches, patchWeight, { bias, add: gatherRows(positions, ids) });
    });
    const x = yield* stack.run(yield* own.sites().pass("vision.embed", embedded), own);
    return yield* own.sites().pass("vision.post_norm", postNorm(x));
  };
}

/** Rows of the table of positions for the patches of pictures, in the order of the tower's rows. */
export function positionIds(
  images: readonly Picture[],
  { layout, tower: { positionsPerSide: side } }: VisionSetup<NativeSizeTowerConfig>,
): Uint32Array<ArrayBuffer> {
  const ids = images.flatMap((image) =>
    layout(image).patchGrids!.flatMap(({ rows, columns }) => {
      const across = fractionalPlaces(columns, side);
      return fractionalPlaces(rows, side).flatMap((row) => across.map((column) => row * side + column));
    }),
  );
  return Uint32Array.from(ids);
}

/** The patches of pictures, tile by tile, row by row: f32 [patches, 3 * size * size]. */
function uploadPatches(
  device: Device,
  images: readonly Picture[],
  { layout, tower, processor }: VisionSetup<NativeSizeTowerConfig>,
): Tensor {
  const size = tower.patchSize;
  const parts = images.flatMap((image) => {
    const tiles = tilesOf(pixelValues(image, processor));
    return layout(image).patchGrids!.map((grid, tile) =>
      patchRows(tiles[tile]!, { size, frames: 1 }, placesInBlocks(grid, 1)),
    );
  });
  const all = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  const values = tower.channels * size * size;
  return device.tensor(all, { shape: [all.length / values, values] });
}

/** The tiles of a picture, each by itself. */
function tilesOf({ data, shape, tiling }: PixelValues): PixelValues[] {
  const [, height, width] = shape;
  const sizes =
    tiling?.sizes ?? new Array<{ height: number; width: number }>(tiling?.count ?? 1).fill({ height, width });
  let end = 0;
  return sizes.map(({ height, width }): PixelValues => {
    const start = end;
    end += 3 * height * width;
    return { data: data.subarray(start, end), shape: [3, height, width] };
  });
}
