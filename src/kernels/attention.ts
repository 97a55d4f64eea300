import { apply, type Operation } from "../tensor/operation.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { type AttentionCall, attentionCall, checkAttention, type KeysAndValues } from "./attention-call.ts";
import { combineSlices } from "./attention-combine.ts";
import { launchRegisterAttention, REGISTER_LANES } from "./attention-register.ts";

export { causalSegments, fullSegments } from "./attention-segments.ts";
export type { KeysAndValues };

export interface AttentionInputs extends KeysAndValues {
  /** [rows, heads * headDim] */
  readonly q: Tensor;
  /** u32 [rows, 4]: prefixStart, prefixEnd, ownStart, ownEnd. */
  readonly segments: Tensor;
  /** Keys and values that come before the others, [prefixKeys, kvHeads * headDim]. */
  readonly prefix?: KeysAndValues;
}

export interface AttentionOptions {
  readonly headDim: number;
  /** Factor of the scores, usually headDim ** -0.5. */
  readonly scale: number;
}

/**
 * Multi-head attention, softmax(q k^T * scale) v, with the softmax computed on the way (Milakov and Gimelshein 2018,
 * arXiv 1805.02867), so that scores are never stored. With fewer heads of keys than of queries, head h reads key head
 * floor(h / (heads / kvHeads)).
 *
 * Row r attends to rows prefixStart..prefixEnd-1 of `prefix` and ownStart..ownEnd-1 of k and v, as row r of `segments`
 * says; ranges are cut at the last row. This expresses causal, windowed, full and prefix masks, ragged batches without
 * padding, and shared prefixes: see {@link causalSegments} and {@link fullSegments}. Rows outside of a query's ranges
 * have no influence on it, whatever they hold.
 *
 * q, k, v: f32, f16 or bf16, possibly with rows apart (slices of columns) -> f32 [rows, heads * headDim]. A row without
 * keys, or whose scores are all -infinity, gives 0. A score that is NaN or +infinity makes its head of the row NaN;
 * NaN and infinity in v follow IEEE arithmetic.
 *
 * @throws ShapeError when shapes do not fit.
 * @throws DTypeError for integers, or segments other than u32.
 */
export function attention(
  { q, k, v, segments, prefix }: AttentionInputs,
  { headDim, scale }: AttentionOptions,
): Tensor {
  checkAttention("attention", { q, k, v, segments, prefix }, headDim);
  const inputs = [q, k, v, segments, ...(prefix ? [prefix.k, prefix.v] : [])];
  return apply(attentionOperation, inputs, { headDim, scale });
}

/** Inputs are q, k, v, segments and, with a prefix, its k and v. */
const attentionOperation: Operation<AttentionOptions> = {
  name: "attention",
  run(inputs, { headDim, scale }, device) {
    const call = attentionCall(inputs, headDim, scale);
    const { rows, heads } = call;
    const out = device.empty([rows, heads * headDim], "f32", "attention");
    if (out.size === 0) return out;
    const launch = launchRegisterAttention;
    const slices = sliceCount(call, REGISTER_LANES, { workgroups: 32, keys: 64 });
    if (slices === 1) {
      launch(call, 1, out, undefined);
      return out;
    }
    const partial = device.empty([slices, rows, heads * headDim], "f32", "attention");
    const stats = device.empty([slices, rows * heads, 2], "f32", "attention");
    launch(call, slices, partial, stats);
    combineSlices(partial, stats, out, headDim);
    return out;
  },
};

/** Splits the keys until there are so many workgroups, but leaves each at least so many keys. */
function sliceCount(
  { rows, heads, kvHeads, k, prefix }: AttentionCall,
  pairsPerWorkgroup: number,
  wanted: { workgroups: number; keys: number },
): number {
  const whole = kvHeads * Math.ceil((rows * heads) / kvHeads / pairsPerWorkgroup);
  const keys = k.dim(0) + (prefix?.k.dim(0) ?? 0);
  return Math.max(1, Math.min(Math.ceil(wanted.workgroups / whole), Math.floor(keys / wanted.keys)));
}
