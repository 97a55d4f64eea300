import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { CheckpointError } from "../errors.ts";
import { decodeImage } from "../images/files/decode.ts";
import { type PatchPlaces, patchRows, pixelRows, placesInBlocks } from "../images/patch-rows.ts";
import { type PixelValues, viewSize } from "../images/preprocess.ts";
import type { PatchSizes, ProcessorSettings, Size } from "../images/processors/processor-config.ts";
import type { GoldenFile } from "./golden-file.ts";

/**
 * Pixel values that the goldens of a case have as patches, [patches of all pictures, 3 * frames * size * size] beside
 * `in.image_grid_thw`. Throws CheckpointError where they are not those of pictures, with each frame the same.
 */
export async function readPatches(
  goldens: GoldenFile,
  name: string,
  images: number,
  patches: PatchSizes,
): Promise<PixelValues[]> {
  if (goldens.has(`${name}/in.spatial_shapes`)) return readPaddedPatches(goldens, name, images, patches);
  const key = `${name}/in.pixel_values`;
  const grids = await goldens.read(`${name}/in.image_grid_thw`, 2);
  const { shape, values } = await goldens.read(key, 2);
  const each = Array.from({ length: grids.shape[0]! }, (_, i) => [...grids.values.slice(3 * i, 3 * i + 3)]);
  const expected = each.reduce((sum, [, rows, columns]) => sum + rows! * columns!, 0);
  if (each.length !== images || each.some(([frames]) => frames !== 1) || shape[0] !== expected) {
    throw new CheckpointError(
      `${key}: expected the patches of ${images} images, found [${shape.join(", ")}] for ${JSON.stringify(each)}`,
    );
  }
  let at = 0;
  return each.map(([, rows, columns]) => {
    const all = values.slice(at, at + rows! * columns! * shape[1]!) as Float32Array;
    at += all.length;
    return picture(key, all, { rows: rows!, columns: columns! }, patches);
  });
}

/**
 * The same where the goldens have as many rows for each picture, [images, most patches, size * size * 3], beside
 * `in.spatial_shapes` and `in.pixel_attention_mask`. Throws CheckpointError where the mask or the padding is not as it should be.
 */
async function readPaddedPatches(
  goldens: GoldenFile,
  name: string,
  images: number,
  patches: PatchSizes,
): Promise<PixelValues[]> {
  const key = `${name}/in.pixel_values`;
  const grids = await goldens.read(`${name}/in.spatial_shapes`, 2);
  const mask = await goldens.read(`${name}/in.pixel_attention_mask`, 2);
  const { shape, values } = await goldens.read(key, 3);
  const [count, most, width] = shape as [number, number, number];
  if (count !== images || mask.shape.join() !== [count, most].join()) {
    throw new CheckpointError(
      `${key}: expected the patches of ${images} images, found [${shape.join(", ")}]`,
    );
  }
  return Array.from({ length: images }, (_, i) => {
    const [rows, columns] = [grids.values[2 * i]!, grids.values[2 * i + 1]!];
    const all = values.slice(i * most * width, (i + 1) * most * width) as Float32Array;
    const own = rows * columns;
    const padded = all.subarray(own * width).some((value) => value !== 0);
    if (
      padded ||
      Array.from({ length: most }, (_, row) => mask.values[i * most + row]).some(
        (real, row) => real !== (row < own ? 1 : 0),
      )
    ) {
      throw new CheckpointError(`${key}: expected ${own} patches of image ${i} and then zeros, masked`);
    }
    return picture(key, all.slice(0, own * width), { rows, columns }, patches);
  });
}

/** Rows of patches, each at its place in a picture, of which the first frame counts: [3, height, width], 0 where there is none. */
export function joinedPatches(
  values: Float32Array,
  places: PatchPlaces,
  { size, frames, channelsLast = false }: Omit<PatchSizes, "merge">,
  { height, width }: Size,
): Float32Array<ArrayBuffer> {
  const data = new Float32Array(3 * height * width);
  const length = 3 * frames * size * size;
  for (let patch = 0; patch < places.rows.length; patch++) {
    for (let i = 0; i < 3 * size * size; i++) {
      const [channel, y, x] = [Math.floor(i / size ** 2), Math.floor(i / size) % size, i % size];
      const row = channel * height + places.rows[patch]! * size + y;
      const from = channelsLast
        ? patch * length + (y * size + x) * 3 + channel
        : patch * length + channel * frames * size ** 2 + (i % size ** 2);
      data[row * width + places.columns[patch]! * size + x] = values[from]!;
    }
  }
  return data;
}

/** The picture that patches are cut from. */
function picture(
  key: string,
  values: Float32Array,
  grid: { rows: number; columns: number },
  sizes: PatchSizes,
): PixelValues {
  const { size, merge } = sizes;
  const [height, width] = [grid.rows * size, grid.columns * size];
  const places = placesInBlocks({ rows: grid.rows / merge, columns: grid.columns / merge }, merge);
  const data = joinedPatches(values, places, sizes, { height, width });
  const made: PixelValues = { data, shape: [3, height, width] };
  const again = patchRows(made, sizes, places);
  if (again.length !== values.length || again.some((value, i) => value !== values[i])) {
    throw new CheckpointError(`${key}: expected patches of pictures whose frames are all the same`);
  }
  return made;
}

/**
 * Pixel values that the goldens of a case have as rows of patches, pixel by pixel, [patches of all pictures, size * size * 3]. How
 * many each picture has is told by the pictures themselves, in `folder`.
 */
export async function readPixelRows(
  goldens: GoldenFile,
  name: string,
  files: readonly string[],
  folder: string,
  processor: ProcessorSettings,
): Promise<PixelValues[]> {
  const key = `${name}/in.pixel_values`;
  const { shape, values } = await goldens.read(key, 2);
  const { side } = processor.fillPatches!;
  const sizes = await Promise.all(
    files.map(async (file) => {
      const path = join(folder, file);
      const bytes = await readFile(path).catch((cause) => {
        throw new CheckpointError(`${key}: ${path} is missing, which tells how many patches it has`, {
          cause,
        });
      });
      return viewSize(await decodeImage(bytes), processor);
    }),
  );
  const expected = sizes.reduce((sum, { width, height }) => sum + (width * height) / side ** 2, 0);
  if (shape[0] !== expected || shape[1] !== 3 * side ** 2) {
    throw new CheckpointError(
      `${key}: expected [${expected}, ${3 * side ** 2}] for ${files.length} images, found [${shape.join(", ")}]`,
    );
  }
  let at = 0;
  return sizes.map(({ width, height }) => {
    const length = 3 * width * height;
    at += length;
    return unrolled(values.subarray(at - length, at) as Float32Array, { width, height }, side);
  });
}

/** The picture that rows of pixels are cut from. */
function unrolled(
  rows: Float32Array,
  { width, height }: { width: number; height: number },
  side: number,
): PixelValues {
  const data = new Float32Array(rows.length);
  // Where each number goes is told by the rows of a picture whose numbers count.
  const numbers = Float32Array.from({ length: rows.length }, (_, i) => i);
  pixelRows({ data: numbers, shape: [3, height, width] }, side).forEach((from, to) => {
    data[from] = rows[to]!;
  });
  return { data, shape: [3, height, width] };
}
