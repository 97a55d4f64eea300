import { access, readFile } from "node:fs/promises";
import { join } from "node:path";
import { CheckpointError } from "../errors.ts";
import { decodeImage } from "../images/decode.ts";
import type { PixelValues } from "../images/preprocess.ts";
import type { ProcessorSettings } from "../images/processor-config.ts";
import type { ImageLayout } from "../model/checkpoint/config/vision-setup.ts";
import type { Prompt } from "../model/prompt/prompt.ts";
import { picturesOf, pixelValues } from "../model/prompt/prompt-image.ts";
import type { SiteName } from "../model/walk/sites.ts";
import type { PatchableModel } from "../patching/model.ts";
import { tap } from "../patching/tap.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { checkActivations, type GoldenActivation, readActivations } from "./activations.ts";
import type { CaseFolder, GoldenCase } from "./case-folder.ts";
import { type Check, checkTensor } from "./checks.ts";
import type { GoldenFile } from "./golden-file.ts";
import { readPatches } from "./patch-goldens.ts";

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
  const { values, checks } = await readPixels(folder, name, files.flat(), setup.processor);
  const queue = values.values();
  return { images: files.map((list) => list.map(() => queue.next().value!)), checks };
}

/** Pixel values of a case's pictures, in order, and checks of ours against them. */
export async function readPixels(
  { goldens, path }: CaseFolder,
  name: string,
  files: readonly string[],
  processor: ProcessorSettings,
): Promise<{ values: PixelValues[]; checks: Check[] }> {
  const key = `${name}/in.pixel_values`;
  const values = processor.patches
    ? await readPatches(goldens, name, files.length, processor.patches)
    : await readPlanes(goldens, key, files.length);
  return { values, checks: await checkPixels(key, values, files, join(path, "..", "images"), processor) };
}

/** Pixel values of pictures of one size: [images, 3, height, width]. */
async function readPlanes(goldens: GoldenFile, key: string, images: number): Promise<PixelValues[]> {
  const golden = await goldens.read(key, 4);
  const [count, channels, height, width] = golden.shape as [number, number, number, number];
  if (count !== images || channels !== 3) {
    throw new CheckpointError(`${key}: expected ${images} RGB images, found [${golden.shape.join(", ")}]`);
  }
  const size = channels * height * width;
  return Array.from({ length: images }, (_, i): PixelValues => {
    const data = golden.values.slice(i * size, (i + 1) * size) as Float32Array<ArrayBuffer>;
    return { data, shape: [3, height, width] };
  });
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

export function imageFiles(value: unknown): string[] {
  return Array.isArray(value) ? value.map(String) : [];
}

/** The activations of the vision side: tower, what the projector reads and what it makes. An image a row of the goldens. */
export async function checkVision(
  { goldens, tolerance }: CaseFolder,
  name: string,
  prompts: readonly Prompt[],
  model: PatchableModel,
): Promise<Check[]> {
  const { vision } = model.sites;
  const setup = model.config.vision;
  const places = prompts.flatMap((prompt) => prompt.images.map((_, image) => ({ prompt, image })));
  if (!vision || !setup || places.length === 0) return [];
  const layouts = places.map(({ prompt, image }) => setup.layout(picturesOf(prompt)[image]!));
  const rowsOf = (count: (layout: ImageLayout) => number) =>
    layouts.map((layout) => Array.from({ length: count(layout) }, (_, i) => i));
  const wanted = { sites: model.sites, stack: "vision" as const, packed: setup.fixed === undefined };
  // What the projector reads is a block's output, without the class token where that is dropped.
  const features: SiteName =
    setup.featureLayer === 0 ? "vision.resid_pre.0" : `vision.resid_post.${setup.featureLayer - 1}`;
  const activations = [
    ...(await readActivations(
      goldens,
      `${name}/`,
      rowsOf(({ towerRows }) => towerRows),
      {
        ...wanted,
        names: { "projector.in": features },
      },
    )),
    ...(await readActivations(
      goldens,
      `${name}/projector.`,
      layouts.map(({ tokens, order }) => rowsBehind(tokens, order)),
      {
        ...wanted,
        names: { out: "projector" },
      },
    )),
  ];
  const values: Float32Array[][] = [];
  for (const activation of activations) values.push(await valuesOf(activation, places, model));
  return checkActivations(activations, values, tolerance);
}

/** Of a picture's features, the rows of the golden, which has them as the merger leaves them. */
function rowsBehind(tokens: number, order?: readonly number[]): number[] {
  const rows = Array.from({ length: tokens }, (_, i) => i);
  order?.forEach((token, i) => {
    rows[token] = i;
  });
  return rows;
}

async function valuesOf(
  { site }: GoldenActivation,
  places: readonly { prompt: Prompt; image: number }[],
  model: PatchableModel,
): Promise<Float32Array[]> {
  const values: Float32Array[] = [];
  for (const { prompt, image } of places) {
    const { tapped } = model.run(prompt, { taps: { tapped: tap(site, "all", { image }) }, stopAfter: 0 });
    values.push((await (tapped as Tensor<"f32">).read()) as Float32Array);
    tapped.dispose();
  }
  return values;
}
