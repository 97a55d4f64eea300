import type { Matrix } from "../../kernels/matmul/matrix.ts";
import type { Device } from "../../tensor/device.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { DecoderConfig } from "../checkpoint/config/decoder-config.ts";
import type { VisionSetup } from "../checkpoint/config/vision-setup.ts";
import type { Prompt } from "../prompt/prompt.ts";
import type { PromptImage } from "../prompt/prompt-image.ts";
import { passOverSources } from "../walk/input-passes.ts";
import type { Context } from "../walk/key-value-store.ts";
import type { Pass } from "../walk/pass.ts";
import type { Walk } from "../walk/site-events.ts";
import { type Block, Stack } from "../walk/stack.ts";
import { scoped } from "../walk/walk.ts";
import type { RelativeBias } from "./attention/relative-bias.ts";
import { type ImageFeatures, withPictures } from "./bridges/image-decoder.ts";
import { Decoder, type DecoderParts, idsOf } from "./decoder.ts";
import type { Norm } from "./norm.ts";

/** What an encoder of text is made of. */
export interface EncoderParts {
  /** [vocab, width] */
  readonly embedding: Matrix;
  readonly blocks: readonly Block[];
  readonly finalNorm: Norm;
  /** What makes features of pictures, which take the places of image tokens. */
  readonly pictures?: { readonly setup: VisionSetup; readonly features: ImageFeatures };
}

export interface EncoderDecoderParts {
  readonly encoder: EncoderParts;
  readonly decoder: DecoderParts;
  /** Of both, to be given back with the model. */
  readonly biases: readonly RelativeBias[];
}

/** An encoder that reads the prompt, and a decoder that answers and looks back at it by cross-attention. */
export class EncoderDecoder extends Decoder {
  readonly #encoder: EncoderParts;
  readonly #biases: readonly RelativeBias[];
  readonly #stack: Stack;

  constructor(device: Device, config: DecoderConfig, { encoder, decoder, biases }: EncoderDecoderParts) {
    super(device, config, decoder);
    this.#encoder = encoder;
    this.#biases = biases;
    this.#stack = new Stack(device, encoder.blocks);
  }

  /** The encoder's output for the sources of the pass's prompts. Sites: those of the encoder. */
  *context(_prompts: readonly Prompt[], pass: Pass): Walk<Context> {
    const sources = passOverSources(pass);
    const x = yield* scoped(this.device, () => this.#encode(sources)); // [rows, width]
    return { x, rows: sources.rows };
  }

  override dispose(): void {
    super.dispose();
    for (const bias of this.#biases) bias.dispose();
  }

  *#encode(pass: Pass): Walk<Tensor> {
    const at = pass.sites();
    const { embedding, pictures } = this.#encoder;
    const prompts = pass.rows.spans.map(({ sequence }) => pass.prompt(sequence)! as Prompt<PromptImage>);
    const tokens = embedding.rows(idsOf(this.device, prompts)); // [rows, width]
    const merged = pictures
      ? yield* withPictures(tokens, prompts, pictures.setup, pictures.features, pass)
      : tokens;
    const embedded = yield* at.pass("encoder.embed", merged);
    const x = yield* this.#stack.run(embedded, pass);
    return yield* at.pass("encoder.final_norm", this.#encoder.finalNorm(x));
  }
}
