import type { ModelOutline } from "../../model/language-model.ts";
import type { Prompt } from "../../model/prompt/prompt.ts";
import { type PromptImage, picturesOf, preparePixels } from "../../model/prompt/prompt-image.ts";
import { isLarge } from "../state/chores.ts";
import type { Work } from "./work.ts";

/** Has large pictures resized for the model before the pass that reads them, by whoever does the host's chores. */
export async function preparePictures(
  { chores, signal }: Work,
  model: ModelOutline,
  prompts: readonly Prompt<PromptImage>[],
): Promise<void> {
  const processor = model.config.vision?.processor;
  if (!processor) return;
  for (const prompt of prompts) {
    for (const image of picturesOf(prompt)) {
      if ("shape" in image || !isLarge(image)) continue;
      // What is wrong with a picture is said, in its own words, by the pass.
      await preparePixels(image, processor, (...args) => chores.pixels(...args)).catch(() => {});
      signal.throwIfAborted();
    }
  }
}
