import { ImageError } from "../errors.ts";
import type { Size } from "./processors/processor-config.ts";
import type { Rectangle } from "./resize.ts";

/**
 * What Idefics 2 takes of a picture with image splitting, in pixels: its quarters row by row, then the whole. The odd pixel of
 * a side goes to the right and below. Throws ImageError for pictures that have no quarters.
 */
export function quarterAreas({ width, height }: Size): Rectangle[] {
  if (width < 2 || height < 2) {
    throw new ImageError(
      `expected a picture of at least 2 x 2 pixels to split into quarters, found ${width} x ${height}`,
    );
  }
  const [right, below] = [Math.floor(width / 2), Math.floor(height / 2)];
  const quarters = [0, below].flatMap((top) =>
    [0, right].map((left) => ({
      left,
      top,
      width: left === 0 ? right : width - right,
      height: top === 0 ? below : height - below,
    })),
  );
  return [...quarters, { left: 0, top: 0, width, height }];
}
