import { PromptError } from "../../errors.ts";
import type { VisionSetup } from "../checkpoint/config/vision-setup.ts";
import type { Prompt } from "./prompt.ts";

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
