import { ImageError } from "../errors.ts";
import type { HTMLCanvasElement, ImageBitmap, OffscreenCanvas } from "../platform/global-types.ts";
import { type RgbImage, rgbaOverWhite } from "./files/rgb.ts";

/** What a browser holds decoded and can draw. */
export type Drawable = ImageBitmap | HTMLCanvasElement | OffscreenCanvas;

/**
 * Reads the pixels of a bitmap or canvas, drawn on white. Browsers only: throws ImageError where there is no
 * OffscreenCanvas. Bitmaps made with `colorSpaceConversion: "none"` keep the numbers of the file.
 */
export function readDrawable(source: Drawable): RgbImage {
  const { width, height } = source;
  if (typeof OffscreenCanvas === "undefined") {
    throw new ImageError("reading a bitmap or canvas needs a browser's OffscreenCanvas; found none");
  }
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  if (!context) throw new ImageError(`the browser gave no 2d context for ${width} x ${height} pixels`);
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.drawImage(source, 0, 0);
  return rgbaOverWhite(context.getImageData(0, 0, width, height).data, width, height);
}
