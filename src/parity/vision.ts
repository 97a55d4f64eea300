import { access, readFile } from "node:fs/promises";
import { join } from "node:path";
import { CheckpointError } from "../errors.ts";
import { decodeImage } from "../images/decode.ts";
import type { PixelValues } from "../images/preprocess.ts";
import type { ProcessorSettings } from "../images/processor-config.ts";
import { type ImageLayout, imageRowCount } from "../model/checkpoint/config/vision-setup.ts";
import type { Prompt } from "../model/prompt/prompt.ts";
import { picturesOf, pixelValues } from "../model/prompt/prompt-image.ts";
import type { SiteName } from "../model/walk/sites.ts";
import type { PatchableModel } from "../patching/model.ts";
import { tap } from "../patching/tap.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { checkActivations, type GoldenActivation, readActivations } from "./activations.ts";
import type { CaseFolder, GoldenCase } from "./case-folder.ts";
import { type Check, checkTensor } from "./checks.ts";

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
  const { values, checks } = await readPixels(folder, name, files.flat(), setup.processor, files);
  const queue = values.values();
  return { images: files.map((list) => list.map(() => queue.next().value!)), checks };
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
  if (!fits || channels !== 3) {
    throw new CheckpointError(
      `${key}: expected ${files.length} RGB images, found [${golden.shape.join(", ")}]`,
    );
  }
  const size = channels * height * width;
  const values = places.map((place): PixelValues => {
    const data = golden.values.slice(place * size, (place + 1) * size) as Float32Array<ArrayBuffer>;
    return { data, shape: [3, height, width] };
  });
  const checks: Check[] = [];
  for (const [i, file] of files.entries()) {
    const picture = join(path, "..", "images", file);
    const found = await access(picture).then(
      () => true,
      () => false,
    );
    if (!found) continue;
    const ours = pixelValues(await decodeImage(await readFile(picture)), processor);
    checks.push(checkTensor(`${key}, from ${file}`, [ours.data], [values[i]!.data], PIXEL_TOLERANCE));
  }
  return { values, checks };
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
  const { sites } = model;
  const wanted = { sites, stack: "vision" as const };
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
      rowsOf(({ tokens }) => tokens),
      {
        ...wanted,
        names: { out: "projector" },
      },
    )),
    ...(await readActivations(
      goldens,
      `${name}/`,
      rowsOf((layout) => imageRowCount(layout, "latents")),
      { sites, stack: "resampler" },
    )),
  ];
  const values: Float32Array[][] = [];
  for (const activation of activations) values.push(await valuesOf(activation, places, model));
  return checkActivations(activations, values, tolerance);
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
