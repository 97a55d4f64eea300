import { add } from "../../kernels/elementwise/elementwise.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { LinearGroup } from "../checkpoint/weights/linear-group.ts";
import type { Linear } from "../checkpoint/weights/linear-layer.ts";
import type { AttentionRule } from "../walk/masks.ts";
import type { Pass } from "../walk/pass.ts";
import type { Sites, Walk } from "../walk/site-events.ts";
import type { Block } from "../walk/stack.ts";
import { type Attention, attend, type KeyRows } from "./attention/attention-layer.ts";
import { attendAcross, type CrossParts, crossBlock } from "./attention/cross-attention.ts";
import { addDeepstack } from "./bridges/deepstack.ts";
import { splitRows } from "./bridges/split-rows.ts";
import type { Mlp } from "./mlp.ts";
import type { Norm } from "./norm.ts";

/**
 * A transformer block: attention and an MLP, each of which reads the residual stream through a norm and adds to it. Where
 * the norms are, and whether the two follow each other, differs from family to family.
 */
export interface BlockParts {
  readonly attention: Attention;
  readonly mlp: Mlp;
  /** In front of attention and MLP; without them they read the stream as it is (OLMo 2). */
  readonly attentionNorm?: Norm;
  readonly mlpNorm?: Norm;
  /** Between attention or MLP and the sum (Gemma 2, OLMo 2). */
  readonly attentionPostNorm?: Norm;
  readonly mlpPostNorm?: Norm;
  /** Over each sum, in place of norms in front (BERT). */
  readonly attentionStreamNorm?: StreamNorm;
  readonly mlpStreamNorm?: StreamNorm;
  /** Both read what enters the block (GPT-NeoX); there is no `resid_mid` then. */
  readonly parallel?: boolean;
  /** What keys and values are made of, from what the queries are made of: x [rows, width]. Default the same (resamplers differ). */
  readonly keyRows?: (x: Tensor, pass: Pass) => KeyRows;
  /** The attention mask: which positions a query sees. What a patch can reach follows from it. */
  readonly rule: AttentionRule;
  /** Features of pictures are added to what enters it, before `resid_pre`. */
  readonly takesPictures?: boolean;
  /** Cross-attention that stands in front of all this, before `resid_pre`. */
  readonly cross?: CrossParts;
  /** Cross-attention between self-attention and MLP (the decoder of an encoder-decoder, a Q-Former). */
  readonly crossAttention?: CrossAttention;
}

/** Norms the residual stream: [rows, width] → the same. May do so otherwise for some rows of the pass than for others. */
export type StreamNorm = (x: Tensor, pass: Pass) => Tensor;

/** Attention to the rows of another stack, which reads the residual stream, perhaps through a norm, and adds to it. */
interface CrossAttention {
  readonly norm?: Norm;
  /** Over the sum. */
  readonly streamNorm?: Norm;
  readonly attention: Attention;
  /** How many positions of each sequence attend, from the first; the others go by. Default all. */
  readonly positions?: number;
  /** Which of the context's rows a query sees. */
  readonly rule: AttentionRule;
}

/** A block that says what it is made of. */
export interface TransformerBlock extends Block {
  readonly parts: BlockParts;
}

export function block(given: BlockParts): TransformerBlock {
  const { q, k, v } = given.attention;
  const parts = given.keyRows
    ? given
    : { ...given, attention: { ...given.attention, qkv: new LinearGroup([q, k, v]) } };
  const { rule, cross = parts.crossAttention } = parts;
  return {
    rule,
    parts,
    ...(cross && { crossRule: cross.rule }),
    ...(parts.takesPictures && { takesPictures: true }),
    run: (x, index, pass) => run(parts, x, index, pass),
  };
}

/** x: [rows, width] → [rows, width]. */
function* run(b: BlockParts, input: Tensor, index: number, pass: Pass): Walk<Tensor> {
  const at = pass.sites(index);
  const entering = b.takesPictures ? yield* addDeepstack(input, index - 1, pass) : input;
  const crossed = b.cross ? yield* crossBlock(b.cross, entering, index, pass) : entering;
  const x = yield* at.pass("resid_pre", crossed);
  const attentionIn = yield* at.pass("attn_in", readBy(b.attentionNorm, x));
  const z = yield* attend(b.attention, attentionIn, index, b.rule, pass, b.keyRows?.(attentionIn, pass));
  const sum = yield* addOutput(x, z, b.attention.o, b.attentionPostNorm, "attn_out", at);
  const middle = b.parallel ? sum : yield* at.pass("resid_mid", b.attentionStreamNorm?.(sum, pass) ?? sum);
  const mid = b.crossAttention ? yield* addAcross(b.crossAttention, middle, index, pass) : middle;
  const mlpReads = b.parallel ? x : mid;
  const mlpIn = yield* at.pass("mlp_in", readBy(b.mlpNorm, mlpReads));
  const hidden = yield* b.mlp.hidden(mlpIn, at, pass); // [rows, mlpWidth]
  const out = b.mlp.outOf?.(pass) ?? b.mlp.out;
  const post = yield* addOutput(mid, hidden, out, b.mlpPostNorm, "mlp_out", at);
  return yield* at.pass("resid_post", b.mlpStreamNorm?.(post, pass) ?? post);
}

/** The stream as a sublayer reads it; without a norm a view, since who puts another value there gives this one back. */
function readBy(norm: Norm | undefined, x: Tensor): Tensor {
  return norm ? norm(x) : x.alias();
}

/** The residual stream plus what cross-attention makes of it: [rows, width] → the same. */
function* addAcross(c: CrossAttention, all: Tensor, index: number, pass: Pass): Walk<Tensor> {
  const split = c.positions === undefined ? undefined : splitRows(pass, c.positions);
  const [x, others] = split ? [split.leading(all), split.others(all)] : [all, undefined];
  const readers = split?.pass ?? pass;
  const at = readers.sites(index, { mark: "x" });
  const read = yield* at.pass("attn_in", readBy(c.norm, x));
  const z = yield* attendAcross(c.attention, read, index, c.rule, readers);
  const sum = yield* addOutput(x, z, c.attention.o, undefined, "attn_out", at);
  const mid = yield* at.pass("resid_mid", c.streamNorm?.(sum) ?? sum);
  return others ? split!.joined(mid, others) : mid;
}

/**
 * The residual stream plus what a sublayer makes of it: x + norm(out(hidden)). Where nothing lies between the product and
 * the sum, neither a norm nor a site in use, the sum happens inside the product, which gives the same numbers.
 */
function* addOutput(
  x: Tensor,
  hidden: Tensor,
  out: Pick<Linear, "apply">,
  norm: Norm | undefined,
  site: "attn_out" | "mlp_out",
  at: Sites,
): Walk<Tensor> {
  if (!norm && !at.uses(site)) return out.apply(hidden, { add: x });
  const product = out.apply(hidden);
  return add(x, yield* at.pass(site, norm?.(product) ?? product));
}
