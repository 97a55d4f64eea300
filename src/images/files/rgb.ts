import { ImageError } from "../../errors.ts";

/** An 8-bit RGB picture: `height` rows of `width` pixels, three bytes each, without padding. */
export interface RgbImage {
  /** In pixels. */
  readonly width: number;
  /** In pixels. */
  readonly height: number;
  /** `height * width * 3` bytes. */
  readonly data: Uint8Array;
  /** The same with transparency left out of account, as a few processors want it (Idefics 2), where the picture has any. */
  readonly opaque?: Uint8Array;
  /** Set where it is not to be cut into tiles though others are (LLaVA-OneVision: one of several in a prompt). */
  readonly whole?: boolean;
}

/** Whether something is a picture with three bytes for each of its pixels: an ImageData, which has four, is none. */
export function isRgbImage(value: unknown): value is RgbImage {
  if (typeof value !== "object" || value === null) return false;
  const { width, height, data, opaque = data } = value as Partial<RgbImage>;
  // By its name: arrays of another realm (an iframe, a test runner's context) are of other classes.
  const areBytes = (bytes: unknown): bytes is Uint8Array =>
    /^\[object Uint8(Clamped)?Array\]$/.test(Object.prototype.toString.call(bytes));
  const fits = (bytes: unknown) => areBytes(bytes) && bytes.length === 3 * width! * height!;
  return [width, height].every((n) => n! > 0) && fits(data) && fits(opaque);
}

/** Throws ImageError, led by the name of the call, for what is no {@link RgbImage}. */
export function checkRgbImage(call: string, image: RgbImage): void {
  if (isRgbImage(image)) return;
  const { width, height, data } = (image ?? {}) as Partial<RgbImage>;
  const found = data ? `${data.constructor.name} of ${data.length} for ${width} x ${height}` : String(image);
  throw new ImageError(
    `${call}: expected 8-bit RGB, a Uint8Array with 3 bytes for each pixel, found ${found}; loadImage makes it of other pictures`,
  );
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
  let isOpaque = true;
  for (let from = 0, to = 0; to < data.length; from += 4, to += 3) {
    const alpha = rgba[from + 3]!;
    if (alpha !== 255) isOpaque = false;
    for (let c = 0; c < 3; c++) data[to + c] = overWhite(rgba[from + c]!, alpha);
  }
  if (isOpaque) return { width, height, data };
  const opaque = Uint8Array.from(data, (_, i) => rgba[Math.floor(i / 3) * 4 + (i % 3)]!);
  return { width, height, data, opaque };
}

/** The picture as it is where transparency is left out of account. */
export function withoutAlpha({ width, height, data, opaque = data }: RgbImage): RgbImage {
  return { width, height, data: opaque };
}
