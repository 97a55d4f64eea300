import type { Command } from "commander";
import { type ImagePatches, imagePatches } from "../../analysis/heads/attention-map.ts";
import { loadImage } from "../../images/files/load.ts";
import type { RgbImage } from "../../images/files/rgb.ts";
import { modelView } from "../../images/preprocess.ts";
import type { ModelOutline } from "../../model/language-model.ts";
import type { Prompt } from "../../model/prompt/prompt.ts";
import type { PromptImage } from "../../model/prompt/prompt-image.ts";
import { visionOf } from "../../tasks/pictures.ts";
import { ofOption } from "./checks.ts";

export interface ImageArguments {
  readonly image: readonly string[];
  readonly span: string;
}

export const IMAGE_OPTION = [
  "--image <file>",
  "PNG, JPEG or WebP file or URL, for an <image> in the prompt; once for each",
] as const;

export function addSpanOption(command: Command): Command {
  return command.option("--span <name>", "which image to look at: image, image2, …", "image");
}

/** A prompt with images, and the one of them that is looked at. */
export interface PicturePrompt {
  readonly prompt: Prompt<PromptImage>;
  /** The image as the model sees it. */
  readonly picture: RgbImage;
}

/** The same where its patches have places in the prompt. */
export interface ImagePrompt extends PicturePrompt {
  readonly patches: ImagePatches;
}

/** Reads the pictures of --image, or of another option. Throws ImageError for files that hold none. */
export function readImages(files: readonly string[] = [], option = "--image"): Promise<RgbImage[]> {
  return ofOption(option, () => Promise.all(files.map((file) => loadImage(file))));
}

/** Throws PromptError for models that take none of the pictures. */
export async function checkImages(model: ModelOutline, images: readonly RgbImage[]): Promise<void> {
  if (images.length > 0) await ofOption("--image", () => visionOf(model));
}

/** Throws PromptError for models and prompts without images. */
export async function picturePrompt(
  model: ModelOutline,
  text: string,
  images: readonly RgbImage[],
  span: string,
): Promise<PicturePrompt> {
  await checkImages(model, images);
  const prompt = model.prompt(text, { images });
  // Images stand in the order of their positions, and nothing else has a name.
  const { start } = await ofOption("--span", () => prompt.span(span));
  const index = Object.values(prompt.spans).filter((other) => other.start < start).length;
  return { prompt, picture: modelView(images[index]!, model.config.vision!.processor) };
}

/** The same, for what looks at the patches' places. Throws PromptError where they have none. */
export async function imagePrompt(
  model: ModelOutline,
  text: string,
  images: readonly RgbImage[],
  span: string,
): Promise<ImagePrompt> {
  const { prompt, picture } = await picturePrompt(model, text, images, span);
  return { prompt, picture, patches: await ofOption("--span", () => imagePatches(prompt, span)) };
}
