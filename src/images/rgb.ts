import { ImageError } from "../tensor/errors.ts";

/** An 8-bit RGB picture: `height` rows of `width` pixels, three bytes each, without padding. */
export interface RgbImage {
  readonly width: number;
  readonly height: number;
  /** `height * width * 3` bytes. */
  readonly data: Uint8Array;
}

/** Pictures over this many pixels (64 Mi) are refused unless the caller allows more. */
export const DEFAULT_MAX_PIXELS = 2 ** 26;

/** Throws ImageError unless the picture has pixels, and no more than `maxPixels` of them. */
export function checkPixelCount(width: number, height: number, maxPixels: number): void {
  if (width < 1 || height < 1)
    throw new ImageError(`expected at least one pixel, found ${width} x ${height}`);
  if (width * height > maxPixels) {
    throw new ImageError(
      `expected at most ${maxPixels} pixels (option maxPixels), found ${width} x ${height} = ${width * height}`,
    );
  }
}

/**
 * Lays a sample over white, rounding to nearest: what transformers 5 does with transparent pictures
 * (image_transforms.convert_to_rgb, through PIL's alpha_composite).
 */
export function overWhite(sample: number, alpha: number): number {
  return alpha === 255 ? sample : Math.round((sample * alpha + 255 * (255 - alpha)) / 255);
}

/** Lays 8-bit RGBA over white. */
export function rgbaOverWhite(rgba: ArrayLike<number>, width: number, height: number): RgbImage {
  const data = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; to < data.length; from += 4, to += 3) {
    const alpha = rgba[from + 3]!;
    for (let c = 0; c < 3; c++) data[to + c] = overWhite(rgba[from + c]!, alpha);
  }
  return { width, height, data };
}
