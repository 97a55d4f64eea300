import type { Size } from "./processors/processor-config.ts";

/** As many whole patches as fit a number, near the picture's proportions. */
export interface MostPatches {
  readonly mostPatches: number;
  /** Side of a patch in pixels. */
  readonly patch: number;
}

/** How near the best scale is. */
const EPS = 1e-5;

/**
 * SigLIP 2's `get_image_size_for_max_num_patches`, in f64 as Python has it: the largest scale, found by bisection, at which the
 * picture, its sides rounded up to whole patches, has no more of them.
 */
export function sizeOfMostPatches({ width, height }: Size, { mostPatches, patch }: MostPatches): Size {
  const scaled = (side: number, scale: number) => Math.max(patch, Math.ceil((side * scale) / patch) * patch);
  let [low, high] = [EPS / 10, 100];
  while (high - low >= EPS) {
    const scale = (low + high) / 2;
    const patches = (scaled(height, scale) / patch) * (scaled(width, scale) / patch);
    if (patches <= mostPatches) low = scale;
    else high = scale;
  }
  return { width: scaled(width, low), height: scaled(height, low) };
}
