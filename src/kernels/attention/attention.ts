import { apply, type Operation } from "../../tensor/operation.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import {
  type AttentionAttributes,
  type AttentionBias,
  type AttentionInputs,
  type AttentionOptions,
  type AttentionSource,
  attentionSources,
  checkAttention,
  type KeysAndValues,
  packAttention,
  pairArithmetic,
} from "./attention-call.ts";
import { combineSlices } from "./attention-combine.ts";
import { launchRegister, REGISTER_PAIRS } from "./attention-register.ts";
import { launchWorkgroup, workgroupPairs } from "./attention-workgroup.ts";

export { causalSegments, fullSegments } from "./attention-segments.ts";
export type { AttentionBias, AttentionInputs, AttentionOptions, KeysAndValues };

/**
 * Multi-head attention, softmax(q k^T * scale) v, with the softmax computed on the way (Milakov and Gimelshein 2018,
 * arXiv 1805.02867), so that scores are never stored. With fewer heads of keys than of queries, head h reads key head
 * floor(h / (heads / kvHeads)).
 *
 * Row r attends to rows prefixStart..prefixEnd-1 of `prefix` and ownStart..ownEnd-1 of k and v, as row r of `segments`
 * says; ranges are cut at the last row. This expresses causal, windowed, full and prefix masks, ragged batches without
 * padding, and shared prefixes: see {@link causalSegments} and {@link fullSegments}. Rows outside of a query's ranges
 * have no influence on it, whatever they hold. A `bias` is added to the scores by head and distance, which costs no
 * more memory than its table.
 *
 * q, k, v: f32, f16 or bf16, possibly with rows apart (slices of columns) -> f32 [rows, heads * headDim]. A row without
 * keys, or whose scores are all -infinity, gives 0. A score that is NaN or +infinity makes its head of the row NaN;
 * NaN and infinity in v follow IEEE arithmetic.
 *
 * @throws ShapeError when shapes do not fit.
 * @throws DTypeError for integers, segments other than u32, or shifts other than i32.
 */
export function attention(inputs: AttentionInputs, options: AttentionOptions): Tensor {
  checkAttention("attention", inputs, options);
  const attributes = { ...options, biased: inputs.bias !== undefined };
  return apply(attentionOperation, packAttention(inputs), attributes);
}

export const attentionOperation: Operation<AttentionAttributes> = {
  name: "attention",
  arithmetic: (inputs, attributes) => pairArithmetic(inputs, attributes, 4),
  run(inputs, options, device) {
    const sources = attentionSources(inputs, options);
    const { q, headDim } = sources[0]!;
    const rows = q.dim(0);
    const heads = q.dim(1) / headDim;
    const out = device.empty(q.shape, "f32", "attention");
    if (out.size === 0) return out;
    const { launch, pairs, wanted } =
      device.info.kernels === "workgroup"
        ? { launch: launchWorkgroup, pairs: workgroupPairs, wanted: { workgroups: 512, keys: 128 } }
        : { launch: launchRegister, pairs: () => REGISTER_PAIRS, wanted: { workgroups: 32, keys: 64 } };
    const slices = sources.map((source) => sliceCount(source, pairs(source), wanted));
    const total = slices.reduce((sum, n) => sum + n, 0);
    if (total === 1) {
      launch(sources[0]!, { slices: 1, out, stats: undefined });
      return out;
    }
    const partial = device.empty([total, rows, heads * headDim], "f32", "attention");
    const stats = device.empty([total, rows * heads, 2], "f32", "attention");
    let start = 0;
    sources.forEach((source, i) => {
      const end = start + slices[i]!;
      launch(source, {
        slices: slices[i]!,
        out: partial.slice(0, start, end),
        stats: stats.slice(0, start, end),
      });
      start = end;
    });
    combineSlices(partial, stats, out, headDim);
    return out;
  },
};

/** Splits the keys until there are so many workgroups, but leaves each at least so many keys. */
export function sliceCount(
  { q, k, headDim }: AttentionSource,
  pairsPerWorkgroup: number,
  wanted: { workgroups: number; keys: number },
): number {
  const kvHeads = k.dim(1) / headDim;
  const pairs = (q.dim(0) * q.dim(1)) / headDim / kvHeads;
  const whole = kvHeads * Math.ceil(pairs / pairsPerWorkgroup);
  return Math.max(1, Math.min(Math.ceil(wanted.workgroups / whole), Math.floor(k.dim(0) / wanted.keys)));
}
