import { setRows } from "../../../kernels/movement/row-edits.ts";
import type { Device } from "../../../tensor/device.ts";
import type { Tensor } from "../../../tensor/tensor.ts";
import type { DecoderConfig } from "../../checkpoint/config/decoder-config.ts";
import type { VisionSetup } from "../../checkpoint/config/vision-setup.ts";
import { checkImagePlaces, imagePlaces } from "../../prompt/image-places.ts";
import type { Prompt } from "../../prompt/prompt.ts";
import type { PromptImage } from "../../prompt/prompt-image.ts";
import type { Network } from "../../walk/network.ts";
import type { Pass } from "../../walk/pass.ts";
import type { Sites, Walk } from "../../walk/site-events.ts";
import type { Stack } from "../../walk/stack.ts";
import { scoped } from "../../walk/walk.ts";
import { type Decoder, idsOf } from "../decoder.ts";

/**
 * What the language model gets of the pictures of some prompts: [places, width], image by image. `pass` is over the prompts;
 * its `images` are over the pictures. Sites: those of the vision side.
 */
export type ImageFeatures = (images: readonly PromptImage[], pass: Pass) => Walk<Tensor>;

/** A decoder of words in which the features of pictures stand in the places of the image tokens. */
export class ImageDecoder implements Network {
  readonly device: Device;
  readonly config: DecoderConfig;
  readonly stack: Stack;
  readonly #decoder: Decoder;
  readonly #setup: VisionSetup;
  readonly #features: ImageFeatures;

  constructor(decoder: Decoder, setup: VisionSetup, features: ImageFeatures) {
    this.device = decoder.device;
    this.config = decoder.config;
    this.stack = decoder.stack;
    this.#decoder = decoder;
    this.#setup = setup;
    this.#features = features;
  }

  /** All that the tower makes goes before the language model begins, except what is put in its rows. */
  embed(prompts: readonly Prompt<PromptImage>[], pass: Pass): Walk<Tensor> {
    return scoped(this.device, () => this.#embed(prompts, pass));
  }

  *#embed(prompts: readonly Prompt<PromptImage>[], pass: Pass): Walk<Tensor> {
    const tokens = this.#decoder.tokenEmbeddings(idsOf(this.device, prompts)); // [rows, width]
    const merged = yield* withPictures(tokens, prompts, this.#setup, this.#features, pass);
    return yield* pass.sites().pass("embed", this.#decoder.withPositions(merged, pass));
  }

  embedTokens(ids: Tensor, pass: Pass): Walk<Tensor> {
    return this.#decoder.embedTokens(ids, pass);
  }

  head(x: Tensor, at: Sites): Walk<Tensor> {
    return this.#decoder.head(x, at);
  }

  dispose(): void {
    this.#decoder.dispose();
  }
}

/** The token embeddings of prompts, [rows, width], with the features of their pictures in the places of image tokens. */
export function* withPictures(
  tokens: Tensor,
  prompts: readonly Prompt<PromptImage>[],
  setup: VisionSetup,
  featuresOf: ImageFeatures,
  pass: Pass,
): Walk<Tensor> {
  const places = imageRows(prompts, setup);
  if (places.length === 0) return tokens;
  const images = prompts.flatMap((prompt) => prompt.images);
  return setRows(tokens, places, yield* featuresOf(images, pass)); // [places, width]
}

/** Rows of the batch that hold image features, image by image. Throws PromptError when they do not match the images. */
function imageRows(prompts: readonly Prompt<PromptImage>[], setup: VisionSetup): number[] {
  const rows: number[] = [];
  let start = 0;
  for (const prompt of prompts) {
    checkImagePlaces(prompt, setup);
    for (const place of imagePlaces(prompt, setup)) rows.push(start + place);
    start += prompt.length;
  }
  return rows;
}
