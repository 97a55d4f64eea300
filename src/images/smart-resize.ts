import { ImageError } from "../errors.ts";
import type { Size } from "./processors/processor-config.ts";

/** Sides that are multiples of `multiple`, and a number of pixels within bounds, near the picture's proportions. */
export interface PixelBounds {
  readonly minPixels: number;
  readonly maxPixels: number;
  /** Of both sides, in pixels. */
  readonly multiple: number;
}

/** Longest side by shortest that is taken. */
const MOST_OBLONG = 200;

/** Qwen2-VL's `smart_resize`, in f64 as Python has it. Throws ImageError for pictures that are too oblong. */
export function smartResize({ width, height }: Size, { minPixels, maxPixels, multiple }: PixelBounds): Size {
  const oblong = Math.max(width, height) / Math.min(width, height);
  if (oblong > MOST_OBLONG) {
    throw new ImageError(
      `expected a picture at most ${MOST_OBLONG} times as long as wide, found ${width} x ${height}`,
    );
  }
  const rounded = (side: number) => roundHalfToEven(side / multiple) * multiple;
  const [h, w] = [rounded(height), rounded(width)];
  if (h * w > maxPixels) {
    const by = Math.sqrt((height * width) / maxPixels);
    const shrunk = (side: number) => Math.max(multiple, Math.floor(side / by / multiple) * multiple);
    return { height: shrunk(height), width: shrunk(width) };
  }
  if (h * w < minPixels) {
    const by = Math.sqrt(minPixels / (height * width));
    const grown = (side: number) => Math.ceil((side * by) / multiple) * multiple;
    return { height: grown(height), width: grown(width) };
  }
  return { height: h, width: w };
}

/** Python's `round`. */
export function roundHalfToEven(value: number): number {
  const below = Math.floor(value);
  if (value - below !== 0.5) return Math.round(value);
  return below % 2 === 0 ? below : below + 1;
}
