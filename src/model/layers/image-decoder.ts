import { setRows } from "../../kernels/movement/row-edits.ts";
import type { Device } from "../../tensor/device.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { DecoderConfig } from "../checkpoint/config/decoder-config.ts";
import type { VisionSetup } from "../checkpoint/config/vision-setup.ts";
import { checkImagePlaces, imagePlaces } from "../prompt/image-places.ts";
import type { Prompt } from "../prompt/prompt.ts";
import type { PromptImage } from "../prompt/prompt-image.ts";
import type { Network } from "../walk/network.ts";
import type { Pass } from "../walk/pass.ts";
import type { Sites, Walk } from "../walk/sites.ts";
import type { Stack } from "../walk/stack.ts";
import { scoped } from "../walk/walk.ts";
import { type Decoder, idsOf } from "./decoder.ts";

/**
 * The features of the pictures of prompts, one picture after the other: [places, width]. Sites: those of the vision side.
 */
export type ImageFeatures = (prompts: readonly Prompt<PromptImage>[], pass: Pass) => Walk<Tensor>;

/** A decoder in which features of pictures take the places of image tokens. */
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
    const at = pass.sites();
    const tokens = this.#decoder.tokenEmbeddings(idsOf(this.device, prompts)); // [rows, width]
    const places = imageRows(prompts, this.#setup);
    if (places.length === 0) return yield* at.pass("embed", this.#decoder.withPositions(tokens, pass));
    const features = yield* this.#features(prompts, pass); // [places, width]
    const merged = setRows(tokens, places, features);
    return yield* at.pass("embed", this.#decoder.withPositions(merged, pass));
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
