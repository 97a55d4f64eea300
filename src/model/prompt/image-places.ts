import { PromptError } from "../../errors.ts";
import type { VisionSetup } from "../checkpoint/config/vision-setup.ts";
import type { Prompt } from "./prompt.ts";
import { picturesOf } from "./prompt-image.ts";

/** What a model computes from. */
export type PromptInput = Pick<Prompt, "ids" | "images">;

/** For each prompt, the number of images that the prompts before it have. */
export function firstImages(prompts: readonly Prompt[]): number[] {
  let count = 0;
  return prompts.map(({ images }) => {
    count += images.length;
    return count - images.length;
  });
}

/** Positions of a prompt that hold image features, image by image. */
export function imagePlaces({ ids }: Pick<Prompt, "ids">, { imageTokenId }: VisionSetup): number[] {
  return ids.flatMap((id, position) => (id === imageTokenId ? [position] : []));
}

/** The same for each image by itself. */
export function placesByImage(prompt: PromptInput, setup: VisionSetup): number[][] {
  const places = imagePlaces(prompt, setup);
  return picturesOf(prompt).map((image) => places.splice(0, setup.layout(image).tokens));
}

/** Throws PromptError unless a prompt has as many places for image features as its pictures fill, as the model wants them. */
export function checkImagePlaces(prompt: Prompt, setup: VisionSetup): void {
  const { length } = prompt.images;
  const places = imagePlaces(prompt, setup).length;
  const expected = picturesOf(prompt).reduce((sum, image) => sum + setup.layout(image).tokens, 0);
  if (places !== expected) {
    throw new PromptError(
      `Expected ${expected} ${setup.imageToken} tokens for ${length} image(s), found ${places}.`,
    );
  }
  setup.check?.(prompt);
}
