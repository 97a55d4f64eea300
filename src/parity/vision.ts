import { access, readFile } from "node:fs/promises";
import { join } from "node:path";
import { CheckpointError } from "../errors.ts";
import { decodeImage } from "../images/decode.ts";
import type { PixelValues } from "../images/preprocess.ts";
import type { ProcessorSettings } from "../images/processor-config.ts";
import {
  hasTileMap,
  type ImageLayout,
  type ImageRowCounts,
  imageRowCount,
  imageRowCounts,
  tileRows,
  type VisionSetup,
} from "../model/checkpoint/config/vision-setup.ts";
import type { Prompt } from "../model/prompt/prompt.ts";
import { picturesOf, pixelValues } from "../model/prompt/prompt-image.ts";
import { siteInfo } from "../model/walk/site-shapes.ts";
import type { SiteName } from "../model/walk/sites.ts";
import type { PatchableModel } from "../patching/model.ts";
import { tap } from "../patching/tap.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { checkActivations, type GoldenActivation, readActivations } from "./activations.ts";
import { checkCanvasVision, filledUp, readCanvases } from "./canvas-goldens.ts";
import type { CaseFolder, GoldenCase } from "./case-folder.ts";
import { type Check, checkTensor } from "./checks.ts";
import type { Golden, GoldenFile } from "./golden-file.ts";
import { quartersAs, readMasked } from "./masked-pixels.ts";
import { readPatches, readPixelRows } from "./patch-goldens.ts";
import { readQFormer } from "./qformer.ts";
import { OMITTED } from "./thinned.ts";
import { checkTilePixels, readTileGrids, splitAs } from "./tile-goldens.ts";
import { checkTowerPositions } from "./tower-positions.ts";

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
  // They are large, and may be left out or thinned: then the runs take what we make of the pictures.
  if (!goldens.has(key)) return { values: await ownPixels(key, files, folder, processor), checks: [] };
  const theirs = processor.patches
    ? await readPatches(goldens, name, files.length, processor.patches)
    : processor.canvas
      ? await readCanvases(goldens, name, files, folder, processor, byItem)
      : processor.fillPatches
        ? await readPixelRows(goldens, name, files, folder, processor)
        : processor.grid
          ? await readTileGrids(goldens, name, files, folder, processor, byItem)
          : processor.tiles
            ? await readTiles(goldens, name, files.length)
            : processor.kind === "idefics2"
              ? await readMasked(goldens, name, byItem ?? [files], processor)
              : await readSquares(goldens, name, files, byItem);
  const whole = theirs.every(({ data }) => !data.includes(OMITTED));
  const values = whole ? theirs : await ownPixels(key, files, folder, processor);
  return { values, checks: await checkPixels(key, theirs, files, folder, processor) };
}

async function ownPixels(
  key: string,
  files: readonly string[],
  folder: string,
  processor: ProcessorSettings,
): Promise<PixelValues[]> {
  return await Promise.all(
    files.map(async (file) => {
      const bytes = await readFile(join(folder, file)).catch((cause) => {
        throw new CheckpointError(`${key} is missing, and so is ${join(folder, file)} to make it of`, {
          cause,
        });
      });
      return pixelValues(await decodeImage(bytes), processor);
    }),
  );
}

/** Checks of what we make of the pictures in `folder`, where they are there. */
async function checkPixels(
  key: string,
  values: readonly PixelValues[],
  files: readonly string[],
  folder: string,
  processor: ProcessorSettings,
): Promise<Check[]> {
  const checks: Check[] = [];
  for (const [i, file] of files.entries()) {
    const picture = join(folder, file);
    const found = await access(picture).then(
      () => true,
      () => false,
    );
    if (!found) continue;
    const ours = pixelValues(await decodeImage(await readFile(picture)), processor);
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
  return places.map((place): PixelValues => {
    const data = golden.values.slice(place * size, (place + 1) * size) as Float32Array<ArrayBuffer>;
    return { data, shape: [3, height, width] };
  });
}

/** Goldens [images, tiles, 3, height, width], where pictures with fewer tiles are filled up with zeros, and their sizes. */
async function readTiles(goldens: GoldenFile, name: string, images: number): Promise<PixelValues[]> {
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
    return { data, shape: [3, side, side], tiling: { count: own, width, height } };
  });
}

function wrongPixels(key: string, images: number, { shape }: Golden): CheckpointError {
  return new CheckpointError(`${key}: expected ${images} RGB images, found [${shape.join(", ")}]`);
}

export function imageFiles(value: unknown): string[] {
  return Array.isArray(value) ? value.map(String) : [];
}

/** The activations of the vision side: tower, what the projector reads and what it makes. */
export async function checkVision(
  folder: CaseFolder,
  name: string,
  prompts: readonly Prompt[],
  model: PatchableModel,
): Promise<Check[]> {
  const { goldens, tolerance } = folder;
  const { vision } = model.sites;
  const setup = model.config.vision;
  const places = prompts.flatMap((prompt) => prompt.images.map((_, image) => ({ prompt, image })));
  if (!vision || !setup || places.length === 0) return [];
  if (setup.processor.canvas) return await checkCanvasVision(folder, name, prompts, model);
  // An image a row of the goldens; where pictures are cut into tiles, a tile.
  const pieces = places.flatMap((place) => {
    const layout = setup.layout(picturesOf(place.prompt)[place.image]!);
    const counts = imageRowCounts(setup, place.prompt)[place.image]!;
    const { tiles = 1 } = layout;
    return Array.from({ length: tiles }, (_, tile): Piece => ({ ...place, layout, counts, tile, tiles }));
  });
  const rowsOf = (count: (layout: ImageLayout & ImageRowCounts) => number) =>
    pieces.map(({ layout, counts, tiles }) =>
      Array.from({ length: count({ ...layout, ...counts }) / tiles }, (_, i) => i),
    );
  const padded = paddedPatches(pieces);
  const ofTower = padded?.columns ?? rowsOf(({ towerRows }) => towerRows);
  const extent = padded && { extent: padded.extent };
  const { "projector.mlp": _, ...ofLatents } = resamplerNames(setup);
  const { sites } = model;
  const packed = setup.fixed === undefined && !setup.tiled && !setup.resampler;
  const shuffles = setup.shuffle !== undefined;
  const wanted = { sites, stack: "vision" as const, packed };
  const features = featureSite(setup);
  const activations = [
    ...(await readActivations(goldens, `${name}/`, ofTower, {
      ...wanted,
      ...extent,
      names: shuffles ? {} : { "projector.in": features },
    })),
    ...(await readActivations(
      goldens,
      `${name}/projector.`,
      packed
        ? pieces.map(({ layout: { tokens, order } }) => rowsBehind(tokens, order))
        : rowsOf(({ tileFeatures, tokens }) => tileFeatures ?? tokens),
      {
        ...wanted,
        names: {
          out: hasTileMap(setup) ? "tile_features" : "projector",
          ...(shuffles && { in: "pixel_shuffle", mlp: "projector" }),
          norm: "projector_norm",
        },
      },
    )),
    ...(await readActivations(
      goldens,
      `${name}/`,
      rowsOf(({ tokens }) => tokens),
      { ...wanted, stack: "text", ofImages: true },
    )),
    ...(await readActivations(
      goldens,
      `${name}/`,
      rowsOf((layout) => imageRowCount(layout, "latents")),
      { sites, stack: "resampler", names: ofLatents },
    )),
    ...(await readActivations(goldens, `${name}/projector.mlp`, ofTower, {
      sites,
      stack: "resampler",
      ...extent,
      names: { "": "resampler.in" },
    })),
    ...(await readQFormer(goldens, name, rowsOf, model)),
  ];
  const values: Float32Array[][] = [];
  for (const activation of activations) values.push(await valuesOf(activation, pieces, model));
  const pictures = prompts.flatMap(picturesOf);
  return [
    ...(padded ? await checkTowerPositions(goldens, name, pictures, padded.columns, setup) : []),
    ...checkActivations(activations, values, tolerance),
  ];
}

/** What the goldens call the sites of a resampler that is behind a projection. */
export function resamplerNames({ resampler }: VisionSetup): Record<string, SiteName> {
  if (!resampler?.projects) return {};
  const layers = Array.from({ length: resampler.layers }, (_, layer) => layer);
  return {
    ...Object.fromEntries(
      layers.map((layer): [string, SiteName] => [
        `projector.resid_post.${layer}`,
        `resampler.resid_post.${layer}`,
      ]),
    ),
    "projector.mlp": "resampler.in",
    "projector.out": "resampler.out",
  };
}

/** Where the goldens have the patches of pictures of unequal size, which are padded to the largest of a case. */
function paddedPatches(pieces: readonly Piece[]): { columns: number[][]; extent: number } | undefined {
  const grids = pieces.flatMap(({ layout, tile }) => layout.patchGrids?.[tile] ?? []);
  if (grids.length === 0) return undefined;
  const most = Math.max(...grids.map(({ columns }) => columns));
  const columns = grids.map(({ rows, columns }) =>
    Array.from({ length: rows * columns }, (_, i) => Math.floor(i / columns) * most + (i % columns)),
  );
  return { columns, extent: most * Math.max(...grids.map(({ rows }) => rows)) };
}

/** What the projector reads: a block's output, without the class token where that is dropped, or what a norm makes of it. */
export function featureSite({ featureLayer, postNorm }: VisionSetup): SiteName {
  if (postNorm) return "vision.post_norm";
  return featureLayer === 0 ? "vision.resid_pre.0" : `vision.resid_post.${featureLayer - 1}`;
}

/** An image of a prompt, or a tile of it. */
interface Piece {
  readonly prompt: Prompt;
  readonly image: number;
  readonly layout: ImageLayout;
  readonly counts: ImageRowCounts;
  readonly tile: number;
  readonly tiles: number;
}

/** Of a picture's features, the rows of the golden, which has them as the merger leaves them. */
export function rowsBehind(tokens: number, order?: readonly number[]): number[] {
  const rows = Array.from({ length: tokens }, (_, i) => i);
  order?.forEach((token, i) => {
    rows[token] = i;
  });
  return rows;
}

async function valuesOf(
  { site }: GoldenActivation,
  pieces: readonly Piece[],
  model: PatchableModel,
): Promise<Float32Array[]> {
  const values: Float32Array[] = [];
  const { rowsOf: counted, order } = siteInfo(model.sites, site);
  for (const { prompt, image, tile, tiles, layout } of pieces) {
    const stopAfter = Math.max(0, order);
    const { tapped } = model.run(prompt, { taps: { tapped: tap(site, "all", { image }) }, stopAfter });
    const all = (await (tapped as Tensor<"f32">).read()) as Float32Array;
    const counts = counted === "tower" ? tileRows(layout) : new Array<number>(tiles).fill(1);
    const before = (end: number) => counts.slice(0, end).reduce((sum, count) => sum + count, 0);
    const unit = all.length / before(tiles);
    values.push(all.subarray(before(tile) * unit, before(tile + 1) * unit));
    tapped.dispose();
  }
  return values;
}
