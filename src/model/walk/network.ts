import type { Device } from "../../tensor/device.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { DecoderConfig } from "../checkpoint/config/decoder-config.ts";
import type { Prompt } from "../prompt/prompt.ts";
import type { AttentionRule, Pass } from "./pass.ts";
import type { Sites, Walk } from "./sites.ts";

/**
 * The parts of a decoder-only model, in the order in which a forward pass calls them. Passes over whole prompts, single
 * new tokens and changed rows all go through the same three.
 */
export interface Network {
  readonly device: Device;
  readonly config: DecoderConfig;
  /** Token embeddings of whole prompts, one after the other: [rows, width]. Sites: embed (and those of the vision side). */
  embed(prompts: readonly Prompt[], pass: Pass): Walk<Tensor>;
  /** Embeddings of generated tokens, ids u32 [rows]: [rows, width]. */
  embedTokens(ids: Tensor, at: Sites): Walk<Tensor>;
  /** One block: [rows, width] → [rows, width]. */
  layer(index: number, x: Tensor, pass: Pass): Walk<Tensor>;
  /** Final norm and unembedding: [rows, width] → logits [rows, vocab]. */
  head(x: Tensor, at: Sites): Walk<Tensor>;
  /** The attention mask of a layer. What a patch can reach follows from it. */
  attention(layer: number, prompts: readonly Prompt[]): AttentionRule;
  /** Gives the weights' memory back. */
  dispose(): void;
}
