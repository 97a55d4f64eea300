import { type PixelValues, preprocess } from "../images/preprocess.ts";
import type { ProcessorSettings } from "../images/processor-config.ts";
import type { RgbImage } from "../images/rgb.ts";
import type { Device } from "../tensor/device.ts";
import { ImageError, PromptError } from "../tensor/errors.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { Prompt } from "./prompt.ts";
import type { VisionConfig } from "./vision-tower.ts";

/** A picture in a prompt: as decoded, or already preprocessed by the caller. */
export type PromptImage = RgbImage | PixelValues;

/** How a vision-language model takes pictures in. */
export interface VisionSetup {
  readonly tower: VisionConfig;
  /** Token that stands for an image, and for each of its features once expanded. */
  readonly imageToken: string;
  readonly imageTokenId: number;
  /** Blocks of the tower whose output is used; the number of blocks for the last one's. */
  readonly featureLayer: number;
  /** Whether the class token's row goes along. */
  readonly keepsClassToken: boolean;
  /** Positions that an image takes in the prompt. */
  readonly tokensPerImage: number;
  readonly processor: ProcessorSettings;
}

/** For each prompt, the number of images that the prompts before it have. */
export function firstImages(prompts: readonly Prompt[]): number[] {
  let count = 0;
  return prompts.map(({ images }) => {
    count += images.length;
    return count - images.length;
  });
}

/** Positions of a prompt that hold image features, image by image. */
export function imagePlaces({ ids }: Prompt, { imageTokenId }: VisionSetup): number[] {
  return ids.flatMap((id, position) => (id === imageTokenId ? [position] : []));
}

/** Throws PromptError unless a prompt has as many places for image features as its pictures fill. */
export function checkImagePlaces(prompt: Prompt, setup: VisionSetup): void {
  const { length } = prompt.images;
  const places = imagePlaces(prompt, setup).length;
  const expected = length * setup.tokensPerImage;
  if (places !== expected) {
    throw new PromptError(
      `Expected ${expected} ${setup.imageToken} tokens for ${length} image(s), found ${places}.`,
    );
  }
}

/** By processor, then by picture. */
const prepared = new WeakMap<ProcessorSettings, WeakMap<RgbImage, PixelValues>>();

/** Pixel values of a picture; computed once for each decoded picture and processor. */
export function pixelValues(image: PromptImage, processor: ProcessorSettings): PixelValues {
  if ("shape" in image) return image;
  const byImage = prepared.get(processor) ?? new WeakMap<RgbImage, PixelValues>();
  prepared.set(processor, byImage);
  const values = byImage.get(image) ?? preprocess(image, processor);
  byImage.set(image, values);
  return values;
}

/**
 * Pictures on the device: f32 [images, 3, size, size]. Throws ImageError when the processor makes another size than the
 * tower takes.
 */
export function uploadImages(
  device: Device,
  images: readonly PromptImage[],
  { imageSize, channels }: VisionConfig,
  processor: ProcessorSettings,
): Tensor {
  const shape = [channels, imageSize, imageSize];
  const data = new Float32Array(images.length * channels * imageSize * imageSize);
  images.forEach((image, i) => {
    const values = pixelValues(image, processor);
    if (values.shape.join() !== shape.join()) {
      throw new ImageError(
        `expected pixel values [${shape.join(", ")}] for this vision tower, found [${values.shape.join(", ")}]`,
      );
    }
    data.set(values.data, i * values.data.length);
  });
  return device.tensor(data, { shape: [images.length, ...shape] });
}
