import type { Device } from "../../tensor/device.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { DecoderConfig } from "../checkpoint/config/decoder-config.ts";
import type { Prompt } from "../prompt/prompt.ts";
import type { PromptImage } from "../prompt/prompt-image.ts";
import type { Context } from "../walk/key-value-store.ts";
import type { Network } from "../walk/network.ts";
import type { Pass } from "../walk/pass.ts";
import type { Sites, Walk } from "../walk/site-events.ts";
import type { Stack } from "../walk/stack.ts";
import { scoped } from "../walk/walk.ts";
import type { Decoder } from "./decoder.ts";

/** What cross-attention reads of the pictures of a pass's prompts, of which there is one at least. Sites: those of the vision side. */
export type ImageContext = (images: readonly PromptImage[], pass: Pass) => Walk<Context>;

/** A decoder of words some of whose blocks read rows of pictures by cross-attention. */
export class CrossDecoder implements Network {
  readonly device: Device;
  readonly config: DecoderConfig;
  readonly stack: Stack;
  readonly #decoder: Decoder;
  readonly #context: ImageContext;

  constructor(decoder: Decoder, context: ImageContext) {
    this.device = decoder.device;
    this.config = decoder.config;
    this.stack = decoder.stack;
    this.#decoder = decoder;
    this.#context = context;
  }

  *context(prompts: readonly Prompt<PromptImage>[], pass: Pass): Walk<Context | undefined> {
    const images = prompts.flatMap((prompt) => prompt.images);
    if (images.length === 0) return undefined;
    return yield* scoped(this.device, () => this.#context(images, pass));
  }

  embed(prompts: readonly Prompt<PromptImage>[], pass: Pass): Walk<Tensor> {
    return this.#decoder.embed(prompts, pass);
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
