import type { Device } from "../../tensor/device.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { DecoderConfig } from "../checkpoint/config/decoder-config.ts";
import type { Prompt } from "../prompt/prompt.ts";
import type { Context } from "./key-value-store.ts";
import type { Pass } from "./pass.ts";
import type { Sites, Walk } from "./site-events.ts";
import type { Stack } from "./stack.ts";

/**
 * The parts of a decoder-only model, in the order in which a forward pass calls them. Passes over whole prompts, single
 * new tokens and changed rows all go through the same stack.
 */
export interface Network {
  readonly device: Device;
  readonly config: DecoderConfig;
  /** What enters the first block, for whole prompts one after the other: [rows, width]. Sites: embed (and those of the vision side). */
  embed(prompts: readonly Prompt[], pass: Pass): Walk<Tensor>;
  /**
   * The rows of another stack that the blocks' cross-attention reads; undefined where these prompts have none. Absent where no
   * block has cross-attention.
   */
  context?(prompts: readonly Prompt[], pass: Pass): Walk<Context | undefined>;
  /** The same for the generated tokens that the pass is over, ids u32 [rows]: [rows, width]. */
  embedTokens(ids: Tensor, pass: Pass): Walk<Tensor>;
  /** The decoder's blocks. */
  readonly stack: Stack;
  /** Final norm and unembedding: [rows, width] → logits [rows, vocab]. */
  head(x: Tensor, at: Sites): Walk<Tensor>;
  /** Gives the weights' memory back. */
  dispose(): void;
}
