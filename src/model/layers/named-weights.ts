import { SiteError } from "../../errors.ts";
import { add } from "../../kernels/elementwise/elementwise.ts";
import { cast } from "../../kernels/movement/copy.ts";
import { nearest } from "../../nearest.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { DecoderConfig } from "../checkpoint/config/decoder-config.ts";
import { Linear } from "../checkpoint/weights/linear-layer.ts";
import type { Block, Stack } from "../walk/stack.ts";
import type { BlockParts, TransformerBlock } from "./block.ts";
import { type DecoderParts, DecoderStack } from "./decoder.ts";
import type { Norm } from "./norm.ts";

/** Where a layer's matrices are, and of which of its sites the heads are those of the rows that it makes (or reads, W_O). */
const LAYERS: Readonly<Record<string, (b: BlockParts) => Linear | undefined>> = {
  Q: (b) => b.attention.q,
  K: (b) => b.attention.k,
  V: (b) => b.attention.v,
  O: (b) => b.attention.o,
  in: (b) => b.mlp.in,
  gate: (b) => b.mlp.gate,
  out: (b) => b.mlp.out,
};

const NORMS: Readonly<Record<string, (b: BlockParts) => Norm | undefined>> = {
  attn_norm: (b) => b.attentionNorm,
  attn_post_norm: (b) => b.attentionPostNorm,
  mlp_norm: (b) => b.mlpNorm,
  mlp_post_norm: (b) => b.mlpPostNorm,
};

type LayerWeight =
  | `${"W" | "b"}_${"Q" | "K" | "V" | "O" | "in" | "gate" | "out"}`
  | "attn_norm"
  | "attn_post_norm"
  | "mlp_norm"
  | "mlp_post_norm";

const OUTER = ["W_E", "W_pos", "W_U", "b_U", "final_norm"] as const;

/** The name of a weight of a language model: `W_U`, `W_O.5`. docs/patching.md says what each is. */
export type WeightName = (typeof OUTER)[number] | `${LayerWeight}.${number}`;

/** What a decoder is made of. Throws SiteError for a model whose language side is put together otherwise. */
export function decoderPartsOf(stack: Stack): DecoderParts {
  if (stack instanceof DecoderStack) return stack.parts;
  throw new SiteError("the weights of this model have no names: its language side is no plain decoder");
}

/** The linear layer that makes the logits. Throws SiteError where it is not one. */
export function unembeddingOf({ unembedding }: DecoderParts): Linear {
  if (unembedding instanceof Linear) return unembedding;
  throw new SiteError("the logits of this model come of several matrices, none of which is W_U");
}

/** What a block is made of. Throws SiteError for one that is more than attention and an MLP. */
export function blockPartsOf(stack: Stack, layer: number): BlockParts {
  const block: Block & Partial<TransformerBlock> = stack.blocks[layer]!;
  if (block.parts) return block.parts;
  throw new SiteError(`layer ${layer} is no plain block of attention and an MLP; its weights have no names`);
}

/**
 * A weight by its name, in the orientation x @ W, as stored (adapters that were not merged are added, and packed weights
 * unpacked, in f32): a view of the model's own memory where it can be. `head` narrows W_Q, b_Q, W_K, … to the columns of one head, and W_O to its rows.
 *
 * Throws SiteError for names, layers and heads that do not exist, with the nearest name, and for what this model lacks.
 */
export function namedWeight(
  stack: Stack,
  config: DecoderConfig,
  name: string,
  { head }: { readonly head?: number } = {},
): Tensor {
  const { device } = stack;
  return device.scope(() => {
    const found = find(stack, config, name);
    if (found === undefined) throw new SiteError(`weight ${name}: this model has none`);
    if (head === undefined) return found.alias();
    const [, kind = ""] = /^[Wb]_([QKVO])\./.exec(name) ?? [];
    const heads = kind === "K" || kind === "V" ? config.kvHeads : config.heads;
    if (kind === "" || name.startsWith("b_O")) throw new SiteError(`weight ${name}: it has no heads`);
    if (!(Number.isInteger(head) && head >= 0 && head < heads)) {
      throw new SiteError(`weight ${name}: expected a head from 0 to ${heads - 1}, found ${head}`);
    }
    return found.slice(kind === "O" ? 0 : -1, head * config.headDim, (head + 1) * config.headDim);
  });
}

function find(stack: Stack, { layers }: DecoderConfig, name: string): Tensor | undefined {
  const parts = decoderPartsOf(stack);
  switch (name as (typeof OUTER)[number]) {
    case "W_E":
      return parts.embedding.dense(); // [vocab, width]
    case "W_pos":
      return parts.positions; // [context, width]
    case "W_U":
      return unembeddingOf(parts).dense().transpose(); // [width, vocab]
    case "b_U":
      return unembeddingOf(parts).bias; // [vocab]
    case "final_norm":
      return gainOf(parts.finalNorm);
  }
  const [, kind = "", number] = /^(\w+)\.(0|[1-9]\d*)$/.exec(name) ?? [];
  const [, letter = "", matrix = ""] = /^([Wb])_(.+)$/.exec(kind) ?? [];
  if (number === undefined || !(Object.hasOwn(NORMS, kind) || Object.hasOwn(LAYERS, matrix))) {
    throw unknown(name);
  }
  const layer = Number(number);
  if (layer >= layers) {
    throw new SiteError(`weight ${name}: there are ${layers} layers, 0 to ${layers - 1}`);
  }
  const block = blockPartsOf(stack, layer);
  if (Object.hasOwn(NORMS, kind)) return gainOf(NORMS[kind]!(block));
  const linear = LAYERS[matrix]!(block);
  return letter === "b" ? linear?.bias : linear?.dense().transpose();
}

/** What a norm multiplies by, [width]: with Gemma's 1 added. */
function gainOf(norm: Norm | undefined): Tensor | undefined {
  const linear = norm?.linear;
  return linear?.offset ? add(cast(linear.weight, "f32"), linear.offset) : linear?.weight;
}

function unknown(name: string): SiteError {
  const [layer = "0"] = /\d+/.exec(name) ?? [];
  const kinds = [...Object.keys(LAYERS).flatMap((m) => [`W_${m}`, `b_${m}`]), ...Object.keys(NORMS)];
  const candidates = [...OUTER, ...kinds.map((kind) => `${kind}.${Number(layer)}`)];
  return new SiteError(
    `there is no weight ${JSON.stringify(name)}; the nearest is "${nearest(name, candidates)}" (there are ` +
      `${OUTER.join(", ")}, and with a layer, as in "W_O.3", ${kinds.join(", ")})`,
  );
}
