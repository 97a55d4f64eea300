import type { RgbImage } from "../../images/files/rgb.ts";
import { type PixelValues, preprocess } from "../../images/preprocess.ts";
import type { ProcessorSettings } from "../../images/processors/processor-config.ts";
import type { Picture } from "../checkpoint/config/vision-setup.ts";
import type { Prompt } from "./prompt.ts";

/** A picture of a prompt: RGB pixels, or pixel values that are preprocessed already. */
export type PromptImage = Picture;

/** The pictures of a prompt, which a model's own methods only make of pictures. */
export function picturesOf(prompt: Pick<Prompt, "images">): readonly PromptImage[] {
  return prompt.images as readonly PromptImage[];
}

/** By processor, then by picture. */
const prepared = new WeakMap<ProcessorSettings, WeakMap<RgbImage, PixelValues>>();

/** Pixel values of a picture; computed once for each decoded picture and processor. */
export function pixelValues(image: PromptImage, processor: ProcessorSettings): PixelValues {
  if ("shape" in image) return image;
  const known = preparedBy(processor);
  const values = known.get(image) ?? preprocess(image, processor);
  known.set(image, values);
  return values;
}

/** Has them computed by somebody else, as `preprocess` does it, ahead of the pass that wants them. Rejects as `compute` does. */
export async function preparePixels(
  image: PromptImage,
  processor: ProcessorSettings,
  compute: (image: RgbImage, processor: ProcessorSettings) => Promise<PixelValues>,
): Promise<void> {
  if ("shape" in image) return;
  const known = preparedBy(processor);
  if (!known.has(image)) known.set(image, await compute(image, processor));
}

function preparedBy(processor: ProcessorSettings): WeakMap<RgbImage, PixelValues> {
  const known = prepared.get(processor) ?? new WeakMap<RgbImage, PixelValues>();
  prepared.set(processor, known);
  return known;
}

const wholes = new WeakMap<RgbImage, RgbImage>();

/** What a picture is in a prompt of so many, for a processor that cuts only those that are alone; the same object each time. */
export function pictureAmong(image: PromptImage, count: number, { tiles }: ProcessorSettings): PromptImage {
  if (!tiles?.onlyAlone || count === 1 || "shape" in image || image.whole) return image;
  const whole = wholes.get(image) ?? { ...image, whole: true };
  wholes.set(image, whole);
  return whole;
}
