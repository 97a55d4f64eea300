import { access, readFile } from "node:fs/promises";
import { join } from "node:path";
import { CheckpointError } from "../errors.ts";
import { decodeImage } from "../images/files/decode.ts";
import type { RgbImage } from "../images/files/rgb.ts";
import type { PixelValues } from "../images/preprocess.ts";
import type { ProcessorSettings } from "../images/processors/processor-config.ts";
import { pictureAmong, pixelValues } from "../model/prompt/prompt-image.ts";
import type { PatchableModel } from "../patching/model.ts";
import { filledUp, readCanvases } from "./canvas-goldens.ts";
import type { CaseFolder, GoldenCase } from "./case-folder.ts";
import { type Check, checkEqual, checkTensor } from "./checks.ts";
import type { Golden, GoldenFile } from "./golden-file.ts";
import { quartersAs, readMasked } from "./masked-pixels.ts";
import { readPatches, readPixelRows } from "./patch-goldens.ts";
import { OMITTED } from "./thinned.ts";
import { checkTilePixels, readTileGrids, splitAs } from "./tile-goldens.ts";

/** How far pixel values that we make of a picture may be from the processor's. */
const PIXEL_TOLERANCE = { atol: 1e-6, rtol: 1e-6 };

/**
 * The goldens' pixel values, by item of the case. Where the pictures themselves lie beside the case folders (in
 * `../images`), what we would have made of them is checked too.
 */
export async function readImages(
  folder: CaseFolder,
  { name, items }: GoldenCase,
  model: PatchableModel,
): Promise<{ images: PixelValues[][]; checks: Check[] }> {
  const setup = model.config.vision;
  const files = items.map((item) => imageFiles(item["images"]));
  if (!setup || files.every((list) => list.length === 0)) return { images: items.map(() => []), checks: [] };
  const processor = quartersAs(folder.goldens, name, files, splitAs(items, setup.processor));
  const { values, checks } = await readPixels(folder, name, files.flat(), processor, files);
  checks.push(...(await checkTilePixels(folder.goldens, name, values, setup)));
  const counts = `${name}/in.batch_num_images`;
  if (folder.goldens.has(counts)) {
    const theirs = [...(await folder.goldens.read(counts, 1)).values];
    checks.push(
      checkEqual(
        counts,
        files.map(({ length }) => length),
        theirs,
      ),
    );
  }
  const queue = values.values();
  const images = files.map((list) => list.map(() => queue.next().value!));
  return { images: await filledUp(folder.goldens, name, images, processor), checks };
}

/**
 * Pixel values of a case's pictures, in order, and checks of ours against them. `byItem`: the goldens may have them item by item
 * instead, [items, most pictures of an item, 3, height, width], with padding for items that have fewer.
 */
export async function readPixels(
  { goldens, path }: CaseFolder,
  name: string,
  files: readonly string[],
  processor: ProcessorSettings,
  byItem?: readonly (readonly string[])[],
): Promise<{ values: PixelValues[]; checks: Check[] }> {
  const key = `${name}/in.pixel_values`;
  const folder = join(path, "..", "images");
  const among = byItem?.flatMap((own) => own.map(() => own.length)) ?? files.map(() => 1);
  const pixelsOf: PixelsOf = (image, i) => pixelValues(pictureAmong(image, among[i]!, processor), processor);
  // They are large, and may be left out or thinned: then the runs take what we make of the pictures.
  if (!goldens.has(key)) {
    const values = await ownPixels(key, files, folder, pixelsOf);
    const sizes = processor.tiles
      ? await sizesOf(files, folder)
      : values.flatMap(({ shape }) => shape.slice(1));
    return { values, checks: await checkSizes(goldens, name, sizes) };
  }
  const theirs = processor.patches
    ? await readPatches(goldens, name, files.length, processor.patches)
    : processor.canvas
      ? await readCanvases(goldens, name, files, folder, processor, byItem)
      : processor.fillPatches
        ? await readPixelRows(goldens, name, files, folder, processor)
        : processor.grid
          ? await readTileGrids(goldens, name, files, folder, processor, byItem)
          : processor.tiles
            ? await readTiles(goldens, name, among, processor)
            : processor.kind === "idefics2"
              ? await readMasked(goldens, name, byItem ?? [files], processor)
              : await readSquares(goldens, name, files, byItem);
  const whole = theirs.every(({ data }) => !data.includes(OMITTED));
  const values = whole ? theirs : await ownPixels(key, files, folder, pixelsOf);
  return { values, checks: await checkPixels(key, theirs, files, folder, pixelsOf) };
}

/** What we make of a picture, by its number in the case. */
type PixelsOf = (image: RgbImage, index: number) => PixelValues;

async function ownPixels(
  key: string,
  files: readonly string[],
  folder: string,
  pixelsOf: PixelsOf,
): Promise<PixelValues[]> {
  return await Promise.all(
    files.map(async (file, i) => {
      const bytes = await readFile(join(folder, file)).catch((cause) => {
        throw new CheckpointError(`${key} is missing, and so is ${join(folder, file)} to make it from`, {
          cause,
        });
      });
      return pixelsOf(await decodeImage(bytes), i);
    }),
  );
}

/** The sizes that pictures have, where the goldens say them: [images, 2], before they are cut into tiles, or once they are resized. */
async function checkSizes(goldens: GoldenFile, name: string, ours: readonly number[]): Promise<Check[]> {
  const key = `${name}/in.image_sizes`;
  if (!goldens.has(key)) return [];
  return [checkEqual(key, ours, [...(await goldens.read(key, 2)).values])];
}

/** Height and width of each picture. */
async function sizesOf(files: readonly string[], folder: string): Promise<number[]> {
  const sizes: number[] = [];
  for (const file of files) {
    const { height, width } = await decodeImage(await readFile(join(folder, file)));
    sizes.push(height, width);
  }
  return sizes;
}

/** Checks of what we make of the pictures in `folder`, where they are there. */
async function checkPixels(
  key: string,
  values: readonly PixelValues[],
  files: readonly string[],
  folder: string,
  pixelsOf: PixelsOf,
): Promise<Check[]> {
  const checks: Check[] = [];
  for (const [i, file] of files.entries()) {
    const picture = join(folder, file);
    const found = await access(picture).then(
      () => true,
      () => false,
    );
    if (!found) continue;
    const ours = pixelsOf(await decodeImage(await readFile(picture)), i);
    checks.push(checkTensor(`${key}, from ${file}`, [ours.data], [values[i]!.data], PIXEL_TOLERANCE));
  }
  return checks;
}

/** Goldens [images, 3, height, width], or by item of a batch [items, most, 3, height, width]. */
async function readSquares(
  goldens: GoldenFile,
  name: string,
  files: readonly string[],
  byItem?: readonly (readonly string[])[],
): Promise<PixelValues[]> {
  const key = `${name}/in.pixel_values`;
  const golden = await goldens.read(key);
  const nested = byItem !== undefined && golden.shape.length === 5;
  const [items, most = 0] = nested ? golden.shape : [];
  const [count, channels, height, width] = (nested ? golden.shape.slice(1) : golden.shape) as [
    number,
    number,
    number,
    number,
  ];
  const places = nested
    ? byItem.flatMap((own, item) => own.map((_, i) => item * most + i))
    : files.map((_, i) => i);
  const fits = nested
    ? items === byItem.length && byItem.every((own) => own.length <= most)
    : golden.shape.length === 4 && count === files.length;
  if (!fits || channels !== 3) throw wrongPixels(key, files.length, golden);
  const size = channels * height * width;
  const sizes = `${name}/in.image_sizes`;
  const own = goldens.has(sizes) ? (await goldens.read(sizes, 2)).values : undefined;
  return places.map((place, i): PixelValues => {
    const data = golden.values.slice(place * size, (place + 1) * size) as Float32Array<ArrayBuffer>;
    const whole: PixelValues = { data, shape: [3, height, width] };
    return own ? cornerOf(whole, own[2 * i]!, own[2 * i + 1]!) : whole;
  });
}

/** What is left of a picture without its padding to the right and below. */
function cornerOf({ data, shape: [, , width] }: PixelValues, rows: number, columns: number): PixelValues {
  const plane = data.length / 3;
  const corner = new Float32Array(3 * rows * columns);
  for (let row = 0; row < 3 * rows; row++) {
    const from = Math.floor(row / rows) * plane + (row % rows) * width;
    corner.set(data.subarray(from, from + columns), row * columns);
  }
  return { data: corner, shape: [3, rows, columns] };
}

/** Goldens [images, tiles, 3, height, width], where pictures with fewer tiles are filled up with zeros, and their sizes. */
async function readTiles(
  goldens: GoldenFile,
  name: string,
  among: readonly number[],
  { tiles: settings }: ProcessorSettings,
): Promise<PixelValues[]> {
  const images = among.length;
  const key = `${name}/in.pixel_values`;
  const golden = await goldens.read(key, 5);
  const sizes = await goldens.read(`${name}/in.image_sizes`, 2);
  const [count, tiles, channels, side] = golden.shape as [number, number, number, number];
  if (count !== images || channels !== 3 || sizes.shape[0] !== images) throw wrongPixels(key, images, golden);
  const size = channels * side * side;
  return Array.from({ length: images }, (_, i) => {
    const [height, width] = sizes.values.slice(2 * i, 2 * i + 2) as unknown as [number, number];
    const all = golden.values.subarray(i * tiles * size, (i + 1) * tiles * size);
    const isFilled = (tile: number) =>
      all.subarray(tile * size, (tile + 1) * size).every((x) => x === 0 || x === OMITTED);
    let own = tiles;
    while (isFilled(own - 1)) own--;
    const data = all.slice(0, own * size) as Float32Array<ArrayBuffer>;
    const isWhole = settings!.onlyAlone && among[i]! > 1;
    return { data, shape: [3, side, side], ...(!isWhole && { tiling: { count: own, width, height } }) };
  });
}

function wrongPixels(key: string, images: number, { shape }: Golden): CheckpointError {
  return new CheckpointError(`${key}: expected ${images} RGB images, found [${shape.join(", ")}]`);
}

export function imageFiles(value: unknown): string[] {
  return Array.isArray(value) ? value.map(String) : [];
}
