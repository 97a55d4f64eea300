import { attentionOperation } from "../../kernels/attention/attention.ts";
import { attentionBackward } from "../../kernels/attention/attention-backward.ts";
import { scoreTableGradient } from "../../kernels/attention/attention-backward-table.ts";
import { maskAttention, maskAttentionOperation } from "../../kernels/attention/attention-mask.ts";
import {
  attentionMix,
  attentionMixOperation,
  attentionScores,
  attentionScoresOperation,
} from "../../kernels/attention/attention-pattern.ts";
import { lessEqual, notEqual, select } from "../../kernels/elementwise/compare.ts";
import { abs, div, mul, square, sub } from "../../kernels/elementwise/elementwise.ts";
import { sum } from "../../kernels/reduction/reduce.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { type BackwardCall, type Rule, rule } from "../rule.ts";

const attentionRule = rule({
  operation: attentionOperation,
  needs: (_, _wanted, inputs) => ({ inputs: inputs.map((_, i) => i), output: true }),
  backward(call) {
    const { cotangent, attributes, inputs } = call;
    const wanted = inputs.flatMap((_, i) => (call.wanted(i) ? [i] : []));
    const values = inputs.map((_, i) => call.value(i));
    const found = attentionBackward(values, { output: call.output(), cotangent }, { ...attributes, wanted });
    return inputs.map((_, i) => (wanted.includes(i) ? found[wanted.indexOf(i)] : undefined));
  },
});

/**
 * The scores of keys that a row attends to. Products with gradients are by `attentionMix`, which does not look at what has weight
 * 0: rows that nobody attends to may hold anything.
 */
const scoresRule = rule({
  operation: attentionScoresOperation,
  needs: (_, _wanted, inputs) => ({ inputs: inputs.map((_, i) => i) }),
  backward(call) {
    const { attributes, inputs, cotangent } = call;
    const { headDim, scale, softcap, biased } = attributes;
    const gradients: (Tensor | undefined)[] = inputs.map(() => undefined);
    const [q, k, , segments] = [0, 1, 2, 3].map((i) => call.value(i)) as [Tensor, Tensor, Tensor, Tensor];
    const prefixK = inputs.length > (biased ? 6 : 4) ? call.value(4) : undefined;
    const prefixKeys = prefixK?.dim(0) ?? 0;
    const attended = maskAttention(cotangent, segments, { prefixKeys, hidden: 0 });
    const tableAt = inputs.length - 2;
    if (biased && call.wanted(tableAt)) {
      const far = (inputs[tableAt]!.shape[0]! - 1) / 2;
      gradients[tableAt] = scoreTableGradient(attended, {
        segments,
        shifts: call.value(tableAt + 1),
        far,
        prefixKeys,
      });
    }
    const ofQueries = call.wanted(0);
    const ofKeys = call.wanted(1);
    const ofPrefix = prefixK !== undefined && call.wanted(4);
    if (!ofQueries && !ofKeys && !ofPrefix) return gradients;
    const sources = { q, k, segments, ...(prefixK && { prefix: { k: prefixK } }) };
    let products = attended; // gradients of the products q k^T, times scale
    if (softcap !== undefined) {
      const capped = attentionScores(sources, { headDim, scale, softcap });
      const share = div(maskAttention(capped, segments, { prefixKeys, hidden: 0 }), softcap);
      products = mul(attended, sub(1, square(share)));
    }
    if (ofQueries) {
      const prefix = prefixK && { prefix: { v: prefixK } };
      gradients[0] = mul(attentionMix(products, { v: k, ...prefix }, { headDim }), scale);
    }
    if (ofKeys) gradients[1] = mul(byColumns(products.slice(2, prefixKeys), q, k.dim(1), headDim), scale);
    if (ofPrefix)
      gradients[4] = mul(byColumns(products.slice(2, 0, prefixKeys), q, k.dim(1), headDim), scale);
    return gradients;
  },
});

/** Nothing flows back from what was hidden. */
const maskRule = rule({
  operation: maskAttentionOperation,
  needs: () => ({ inputs: [1] }),
  backward: (call) => [
    call.wanted(0)
      ? maskAttention(call.cotangent, call.value(1), { ...call.attributes, hidden: 0 })
      : undefined,
    undefined,
  ],
});

/** out = pattern @ v by head. */
const mixRule = rule({
  operation: attentionMixOperation,
  needs: (_, wanted, inputs) => ({
    inputs: wanted(0) ? inputs.map((_, i) => i) : [0],
  }),
  backward(call) {
    const { cotangent, inputs, attributes } = call;
    const { headDim } = attributes;
    const pattern = call.value(0);
    const width = inputs[1]!.shape[1]!;
    const prefixKeys = inputs[2]?.shape[0] ?? 0;
    const values = (from: number, to?: number) =>
      byColumns(pattern.slice(2, from, to), cotangent, width, headDim);
    return [
      call.wanted(0) ? patternGradient(call, pattern) : undefined,
      call.wanted(1) ? values(prefixKeys) : undefined,
      ...(inputs[2] ? [call.wanted(2) ? values(0, prefixKeys) : undefined] : []),
    ];
  },
});

/**
 * d(result) / d(pattern) = cotangent . v, for keys of weight 0 as well. Of these some may be rows that nobody has written yet, whose
 * products are anything: they have gradient 0 where it is not finite.
 */
function patternGradient(call: BackwardCall<{ headDim: number }>, pattern: Tensor): Tensor {
  const { cotangent, inputs, attributes } = call;
  const rows = cotangent.dim(0);
  const [v, prefixV] = [call.value(1), inputs[2] && call.value(2)];
  const everything = new Uint32Array(4 * rows);
  for (let r = 0; r < rows; r++) everything.set([0, prefixV?.dim(0) ?? 0, 0, v.dim(0)], 4 * r);
  const products = attentionScores(
    {
      ...{ q: cotangent, k: v, ...(prefixV && { prefix: { k: prefixV } }) },
      segments: cotangent.device.tensor(everything, { shape: [rows, 4] }),
    },
    { headDim: attributes.headDim, scale: 1 },
  );
  const finite = lessEqual(abs(products), LARGEST);
  return select(finite, products, select(notEqual(pattern, 0), products, 0));
}

/** The largest finite f32. */
const LARGEST = (2 - 2 ** -23) * 2 ** 127;

/**
 * Of each column the sum of rows x [rows, heads * headDim] weighted by the column, and by the heads that share a head of keys: weights
 * [heads, rows, keys] -> [keys, kvHeads * headDim].
 */
function byColumns(weights: Tensor, x: Tensor, width: number, headDim: number): Tensor {
  const [, , keys] = weights.shape as [number, number, number];
  const byHead = attentionMix(weights.transpose(), { v: x }, { headDim }); // [keys, heads * headDim]
  if (byHead.dim(1) === width) return byHead;
  const kvHeads = width / headDim;
  const group = byHead.dim(1) / width;
  return sum(byHead.reshape([keys, kvHeads, group, headDim]), 2).reshape([keys, width]);
}

export const ATTENTION_RULES: readonly Rule[] = [attentionRule, scoresRule, maskRule, mixRule];
