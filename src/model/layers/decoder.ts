import { add, div, mul, tanh } from "../../kernels/elementwise/elementwise.ts";
import type { Matrix } from "../../kernels/matmul/matrix.ts";
import { gatherRows } from "../../kernels/movement/gather.ts";
import type { Device } from "../../tensor/device.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { DecoderConfig } from "../checkpoint/config/decoder-config.ts";
import type { Linear } from "../checkpoint/weights/linear-layer.ts";
import type { Prompt } from "../prompt/prompt.ts";
import type { Network } from "../walk/network.ts";
import type { Pass } from "../walk/pass.ts";
import type { Sites, Walk } from "../walk/site-events.ts";
import { type Block, Stack } from "../walk/stack.ts";
import type { Norm } from "./norm.ts";
import type { Rotary } from "./rope/rope-tables.ts";

/** What makes logits: one linear layer, or what is put together of several (Idefics), which has no matrix of its own. */
export type Unembedding = Linear | Pick<Linear, "apply">;

/** What a decoder of words is made of. */
export interface DecoderParts {
  /** [vocab, width] */
  readonly embedding: Matrix;
  /** Factor of the embeddings (Gemma). */
  readonly embeddingScale?: number;
  /** Learned positions, [context, width], added to the embeddings (GPT-2). */
  readonly positions?: Tensor;
  readonly blocks: readonly Block[];
  readonly finalNorm: Norm;
  /** [rows, width] → [rows, vocab] */
  readonly unembedding: Unembedding;
  /** Factor of what the unembedding reads (T5). */
  readonly headScale?: number;
  /** Logits become softcap * tanh(logit / softcap) (Gemma 2). */
  readonly logitSoftcap?: number;
  /** The rotary tables of the blocks, to be given back with the model. */
  readonly rope?: readonly Rotary[];
}

/** The blocks of a decoder, with what stands in front of them and behind them. */
export class DecoderStack extends Stack {
  readonly parts: DecoderParts;

  constructor(device: Device, parts: DecoderParts) {
    super(device, parts.blocks);
    this.parts = parts;
  }
}

/** A decoder of words: embeddings, a stack of blocks, a norm and the unembedding. */
export class Decoder implements Network {
  readonly device: Device;
  readonly config: DecoderConfig;
  readonly stack: Stack;
  readonly #parts: DecoderParts;

  constructor(device: Device, config: DecoderConfig, parts: DecoderParts) {
    this.device = device;
    this.config = config;
    this.stack = new DecoderStack(device, parts);
    this.#parts = parts;
  }

  *embed(prompts: readonly Prompt[], pass: Pass): Walk<Tensor> {
    return yield* this.embedTokens(idsOf(this.device, prompts), pass);
  }

  *embedTokens(ids: Tensor, pass: Pass): Walk<Tensor> {
    return yield* pass.sites().pass("embed", this.withPositions(this.tokenEmbeddings(ids), pass));
  }

  /** Rows of the embedding for ids u32 [rows], scaled: [rows, width]. */
  tokenEmbeddings(ids: Tensor): Tensor {
    const { embedding, embeddingScale: scale } = this.#parts;
    const rows = embedding.rows(ids);
    return scale === undefined ? rows : mul(rows, scale);
  }

  /** With the learned positions, if there are any, of the pass's rows. */
  withPositions(x: Tensor, pass: Pass): Tensor {
    const { positions } = this.#parts;
    return positions ? add(x, gatherRows(positions, pass.positions)) : x;
  }

  *head(x: Tensor, at: Sites): Walk<Tensor> {
    const { finalNorm, unembedding, headScale, logitSoftcap: cap } = this.#parts;
    const normed = yield* at.pass("final_norm", finalNorm(x));
    const read = headScale === undefined ? normed : mul(normed, headScale);
    const logits = unembedding.apply(read); // [rows, vocab]
    return yield* at.pass("logits", cap === undefined ? logits : mul(tanh(div(logits, cap)), cap));
  }

  dispose(): void {
    for (const table of this.#parts.rope ?? []) table.dispose();
  }
}

/** The ids of prompts, one after the other: u32 [rows]. */
export function idsOf(device: Device, prompts: readonly Prompt[]): Tensor {
  return device.tensor(Uint32Array.from(prompts.flatMap((p) => p.ids)), { dtype: "u32" });
}
