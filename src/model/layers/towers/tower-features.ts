import type { Tensor } from "../../../tensor/tensor.ts";
import { rowsPerImage, type SquareVisionSetup } from "../../checkpoint/config/vision-config.ts";
import type { ImageLayout } from "../../checkpoint/config/vision-setup.ts";
import type { PromptImage } from "../../prompt/prompt-image.ts";
import { takeRows } from "../../walk/forward.ts";
import { passOverImages } from "../../walk/input-passes.ts";
import type { Pass } from "../../walk/pass.ts";
import type { Walk } from "../../walk/site-events.ts";
import { uploadImages } from "./upload-images.ts";
import type { VisionTower } from "./vision-tower.ts";

/**
 * What a projector reads of pictures: the output of one block of the tower, perhaps behind the tower's last norm, and
 * perhaps without each tile's first row, the class token. [tiles * rows, width of the tower], image by image.
 */
export function* towerFeatures(
  tower: VisionTower,
  setup: SquareVisionSetup,
  images: readonly PromptImage[],
  pass: Pass,
): Walk<Tensor> {
  const { processor, featureLayer, postNorm, keepsClassToken, layout } = setup;
  const tilesOf = (image: PromptImage) => layout(image).tiles ?? 1;
  const uploaded = uploadImages(pass.device, images, setup.tower, processor, tilesOf);
  const pixels = pass.pixels(uploaded); // [tiles, 3, size, size]
  const own = passOverImages(
    pass,
    rowsOf(setup, ({ towerRows }) => towerRows),
  );
  const stream = yield* tower.stream(pixels, own, featureLayer);
  const read = postNorm ? yield* own.sites().pass("vision.post_norm", tower.postNorm(stream)) : stream;
  if (keepsClassToken) return read;
  const rows = rowsPerImage(setup.tower);
  return takeRows(
    read,
    Array.from({ length: read.dim(0) }, (_, row) => row).filter((row) => row % rows !== 0),
  );
}

/** How many rows of something each picture has, for `Pass.images`. */
export function rowsOf(
  { layout }: SquareVisionSetup,
  count: (layout: ImageLayout) => number,
): (image: unknown) => number {
  return (image) => count(layout(image as PromptImage));
}
