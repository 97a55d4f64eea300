import { aFunction, aNumber, anArray, checkArgument, checkOptions } from "../arguments.ts";
import { PromptError, XpatchError } from "../errors.ts";
import { type LoadImageOptions, loadImage } from "../images/files/load.ts";
import type { RgbImage } from "../images/files/rgb.ts";
import { type PixelValues, preprocess } from "../images/preprocess.ts";
import { resize } from "../images/resize.ts";
import type { VisionSetup } from "../model/checkpoint/config/vision-setup.ts";
import type { ModelOutline } from "../model/language-model.ts";
import { aModelOutline } from "../patching/arguments.ts";
import type { PicturedItem, TaskItem } from "./task.ts";

/** Files that are read at the same time. */
const AT_ONCE = 8;

/** The picture of an item, ready for a prompt. Throws XpatchError for an item whose picture was not loaded. */
export type Pictures = (item: TaskItem) => PixelValues;

/** How pictures are loaded, and how wide they are made. */
export interface LoadPicturesOptions extends LoadImageOptions {
  /** Pixels that pictures are made wide before the model's own preprocessing, in proportion (Luo et al. 2025: 224). */
  readonly width?: number;
}

/**
 * Loads the pictures of items, each file once, and preprocesses them for a model. What is kept is as large as the model's
 * view, not as the file's pictures.
 *
 * @throws PromptError if the model takes no pictures, ImageError for a file that is missing or holds none
 */
export async function loadPictures(
  model: ModelOutline,
  items: readonly PicturedItem[],
  options: LoadPicturesOptions = {},
): Promise<Pictures> {
  checkArgument("loadPictures", "model", model, aModelOutline);
  checkArgument("loadPictures", "items", items, anArray);
  checkOptions("loadPictures", options, { maxPixels: aNumber, fetch: aFunction, width: aNumber });
  const { width, ...reading } = options;
  const { processor } = visionOf(model);
  const files = [...new Set(items.map(({ image }) => image))];
  const loaded = new Map<string, PixelValues>();
  for (let first = 0; first < files.length; first += AT_ONCE) {
    const batch = files.slice(first, first + AT_ONCE);
    const pictures = await Promise.all(batch.map((file) => loadImage(file, reading)));
    pictures.forEach((picture, i) => {
      const sized = width === undefined ? picture : madeWide(picture, width);
      loaded.set(batch[i]!, preprocess(sized, processor));
    });
  }
  return ({ input, image }) => {
    const picture = image === undefined ? undefined : loaded.get(image);
    if (picture) return picture;
    throw new XpatchError(
      image === undefined
        ? `"${input}" has no picture`
        : `the picture of "${input}", ${image}, is not loaded`,
    );
  };
}

/** Bicubic, as Pillow's `Image.resize` does by default. */
function madeWide(picture: RgbImage, width: number): RgbImage {
  const height = Math.max(1, Math.trunc((picture.height * width) / picture.width));
  return resize(picture, width, height, "bicubic");
}

/** How a model takes pictures in. Throws PromptError for text models. */
export function visionOf({ name, family, config: { vision } }: ModelOutline): VisionSetup {
  if (vision) return vision;
  throw new PromptError(`${name} (${family}) takes no images; expected a model such as LLaVA`);
}
