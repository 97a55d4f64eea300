import type { RgbImage } from "./files/rgb.ts";
import type { Rectangle } from "./resize.ts";

/** The part of a picture inside `area`; what lies outside of the picture is filled with `colour` (black by default). */
export function crop(image: RgbImage, area: Rectangle, colour: readonly number[] = [0, 0, 0]): RgbImage {
  const { left, top, width, height } = area;
  const data = new Uint8Array(width * height * 3);
  if (colour.some((value) => value !== 0)) {
    for (let i = 0; i < data.length; i++) data[i] = colour[i % 3]!;
  }
  const firstColumn = Math.max(left, 0);
  const endColumn = Math.min(left + width, image.width);
  const endRow = Math.min(top + height, image.height);
  if (endColumn > firstColumn) {
    for (let row = Math.max(top, 0); row < endRow; row++) {
      const begin = row * image.width;
      const pixels = image.data.subarray((begin + firstColumn) * 3, (begin + endColumn) * 3);
      data.set(pixels, ((row - top) * width + firstColumn - left) * 3);
    }
  }
  return { width, height, data };
}

/** The `width` x `height` in the middle of a picture, an odd pixel going to the right and below; larger sizes reach outside. */
export function centred(image: { width: number; height: number }, width: number, height: number): Rectangle {
  return {
    left: Math.floor((image.width - width) / 2),
    top: Math.floor((image.height - height) / 2),
    width,
    height,
  };
}
