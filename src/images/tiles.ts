import { crop } from "./crop.ts";
import type { RgbImage } from "./files/rgb.ts";
import type { Size } from "./processors/processor-config.ts";
import { type ResizeFilter, resize } from "./resize.ts";

/** How pictures are cut into tiles, by their size (LLaVA-NeXT's "anyres"). */
export interface TileSettings {
  /** Of a square tile, in pixels. */
  readonly side: number;
  /** Sizes in whole tiles; a picture is fitted into the one that suits it best. */
  readonly pinpoints: readonly Size[];
  /** Only pictures that are alone in their prompt are cut; others are padded to a square and resized (LLaVA-OneVision). */
  readonly onlyAlone?: boolean;
}

/**
 * The size that keeps most of a picture's pixels and, of those that keep as many, wastes least: transformers'
 * `select_best_resolution`, the first of equals.
 */
export function bestPinpoint({ width, height }: Size, pinpoints: readonly Size[]): Size {
  let best = pinpoints[0]!;
  let most = 0;
  let leastWasted = Number.POSITIVE_INFINITY;
  for (const pinpoint of pinpoints) {
    const scale = Math.min(pinpoint.width / width, pinpoint.height / height);
    const scaled = Math.trunc(width * scale) * Math.trunc(height * scale);
    const kept = Math.min(scaled, width * height);
    const wasted = pinpoint.width * pinpoint.height - kept;
    if (kept > most || (kept === most && wasted < leastWasted)) {
      best = pinpoint;
      most = kept;
      leastWasted = wasted;
    }
  }
  return best;
}

/** The largest size of a picture's proportions inside a canvas: transformers' `get_patch_output_size`. */
function sizeWithin({ width, height }: Size, canvas: Size): Size {
  const [byWidth, byHeight] = [canvas.width / width, canvas.height / height];
  return byWidth < byHeight
    ? { width: canvas.width, height: Math.min(Math.ceil(height * byWidth), canvas.height) }
    : { width: Math.min(Math.ceil(width * byHeight), canvas.width), height: canvas.height };
}

/**
 * The 8-bit squares that the model gets to see of a picture: first the whole, squeezed, then the tiles row by row, which the
 * picture is fitted into with black around it.
 */
export function tileViews(
  image: RgbImage,
  { side, pinpoints }: TileSettings,
  filter: ResizeFilter,
): RgbImage[] {
  const canvas = bestPinpoint(image, pinpoints);
  const size = sizeWithin(image, canvas);
  const fitted = resize(image, size.width, size.height, filter);
  const left = Math.floor((canvas.width - size.width) / 2);
  const top = Math.floor((canvas.height - size.height) / 2);
  const views = [resize(image, side, side, filter)];
  for (let y = 0; y < canvas.height; y += side) {
    for (let x = 0; x < canvas.width; x += side) {
      views.push(crop(fitted, { left: x - left, top: y - top, width: side, height: side }));
    }
  }
  return views;
}
