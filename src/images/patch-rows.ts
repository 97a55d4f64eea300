import type { PixelValues } from "./preprocess.ts";
import type { PatchSizes } from "./processors/processor-config.ts";

/** Where patches lie in their picture, counted in patches, in some order. */
export interface PatchPlaces {
  readonly rows: Uint32Array;
  readonly columns: Uint32Array;
}

/**
 * The places of all patches, block by block of `merge` by `merge`, each block row by row.
 *
 * @param grid the blocks
 * @param order numbers of the blocks; default row by row
 */
export function placesInBlocks(
  grid: { readonly rows: number; readonly columns: number },
  merge: number,
  order: readonly number[] = Array.from({ length: grid.rows * grid.columns }, (_, i) => i),
): PatchPlaces {
  const rows = new Uint32Array(order.length * merge ** 2);
  const columns = new Uint32Array(rows.length);
  let at = 0;
  for (const block of order) {
    for (let i = 0; i < merge ** 2; i++) {
      rows[at] = Math.floor(block / grid.columns) * merge + Math.floor(i / merge);
      columns[at++] = (block % grid.columns) * merge + (i % merge);
    }
  }
  return { rows, columns };
}

/**
 * A row for each patch of a picture, the picture repeated for each frame: [patches, 3, frames, size, size], or with `channelsLast`
 * [patches, size, size, 3].
 */
export function patchRows(
  { data, shape: [, height, width] }: PixelValues,
  { size, frames, channelsLast = false }: Pick<PatchSizes, "size" | "frames" | "channelsLast">,
  { rows, columns }: PatchPlaces,
): Float32Array<ArrayBuffer> {
  if (channelsLast) {
    const pixels = size ** 2;
    return Float32Array.from({ length: rows.length * pixels * 3 }, (_, i) => {
      const [patch, pixel, channel] = [Math.floor(i / (3 * pixels)), Math.floor(i / 3) % pixels, i % 3];
      const row = rows[patch]! * size + Math.floor(pixel / size);
      return data[(channel * height + row) * width + columns[patch]! * size + (pixel % size)]!;
    });
  }
  const out = new Float32Array(rows.length * 3 * frames * size * size);
  let at = 0;
  for (let patch = 0; patch < rows.length; patch++) {
    for (let plane = 0; plane < 3 * frames; plane++) {
      const corner =
        (Math.floor(plane / frames) * height + rows[patch]! * size) * width + columns[patch]! * size;
      for (let y = 0; y < size; y++) {
        out.set(data.subarray(corner + y * width, corner + y * width + size), at);
        at += size;
      }
    }
  }
  return out;
}

/** A row for each patch of a picture, patches row by row, each pixel by pixel: [patches, size, size, 3]. */
export function pixelRows(
  { data, shape: [, height, width] }: PixelValues,
  size: number,
): Float32Array<ArrayBuffer> {
  const out = new Float32Array(3 * height * width);
  let at = 0;
  for (let top = 0; top < height; top += size) {
    for (let left = 0; left < width; left += size) {
      for (let i = 0; i < size * size; i++) {
        const pixel = (top + Math.floor(i / size)) * width + left + (i % size);
        for (let channel = 0; channel < 3; channel++) out[at++] = data[channel * height * width + pixel]!;
      }
    }
  }
  return out;
}
