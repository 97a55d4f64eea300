import { attention } from "../../kernels/attention/attention.ts";
import { type AttentionMaskOptions, maskAttention } from "../../kernels/attention/attention-mask.ts";
import {
  attentionMix,
  attentionPattern,
  attentionScores,
} from "../../kernels/attention/attention-pattern.ts";
import { concat } from "../../kernels/movement/concat.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { Linear } from "../checkpoint/weights/linear-layer.ts";
import type { AttentionRule, Pass } from "../walk/pass.ts";
import type { AttentionMask, Walk } from "../walk/sites.ts";
import type { Norm } from "./norm.ts";
import type { Rotary } from "./rope-tables.ts";

/** Attention of one block. */
export interface Attention {
  readonly q: Linear;
  readonly k: Linear;
  readonly v: Linear;
  readonly o: Linear;
  readonly headDim: number;
  /** Of the scores; default headDim ** -0.5. */
  readonly scale?: number;
  /** Bound of the scores, see `attention`. */
  readonly softcap?: number;
  /** Of queries and keys, before RoPE (Qwen 3, OLMo 2). */
  readonly qNorm?: Norm;
  readonly kNorm?: Norm;
  /** Absent where positions enter elsewhere. */
  readonly rope?: Rotary;
}

/**
 * Multi-head attention (grouped-query where k and v have fewer heads) up to, and without, the output projection.
 * x: [rows, width] → z: [rows, heads * headDim].
 *
 * Sites: q, k and v as projected; q_norm and k_norm where there are norms, both before RoPE; scores (after the soft cap)
 * and pattern [heads, rows, keys], which are materialised only when in use; z.
 */
export function* attend(
  w: Attention,
  x: Tensor,
  layer: number,
  rule: AttentionRule,
  pass: Pass,
): Walk<Tensor> {
  const at = pass.sites(layer);
  const { headDim, scale = headDim ** -0.5, softcap } = w;
  const options = { headDim, scale, softcap };
  const rotate = (t: Tensor) => w.rope?.rotate(t, pass, headDim) ?? t;

  const queries = yield* at.pass("q", w.q.apply(x));
  const q = rotate(w.qNorm ? yield* at.pass("q_norm", w.qNorm(queries)) : queries); // [rows, heads * headDim]
  const keysOfRows = yield* at.pass("k", w.k.apply(x));
  const k = rotate(w.kNorm ? yield* at.pass("k_norm", w.kNorm(keysOfRows)) : keysOfRows); // [rows, kvHeads * headDim]
  const v = yield* at.pass("v", w.v.apply(x));

  if (pass.parts.length > 1) {
    const cut = (t: Tensor, end: number, { rows }: Pass) => t.rows(end - rows.length, end);
    let end = 0;
    const parts = pass.parts.map((part) => {
      end += part.rows.length;
      const keys = part.keys.use(layer, { k: cut(k, end, part), v: cut(v, end, part) });
      return attention({ q: cut(q, end, part), ...keys, segments: part.segments(rule) }, options);
    });
    return concat(parts); // [rows, heads * headDim]
  }
  const keys = pass.keys.use(layer, { k, v });
  const segments = pass.segments(rule);

  if (!at.uses("scores") && !at.uses("pattern")) {
    return yield* at.pass("z", attention({ q, ...keys, segments }, options));
  }
  const prefixKeys = pass.keys.prefixRows;
  const mask = (hidden: number) => maskOf(segments, { prefixKeys, hidden });
  const scores = yield* at.pass(
    "scores",
    attentionScores({ q, ...keys, segments }, options),
    mask(Number.NEGATIVE_INFINITY),
  );
  const pattern = yield* at.pass("pattern", attentionPattern(scores), mask(0)); // [heads, rows, keys]
  return yield* at.pass("z", attentionMix(pattern, keys, { headDim }));
}

function maskOf(segments: Tensor, options: AttentionMaskOptions): AttentionMask {
  return {
    hide: (value) => maskAttention(value, segments, options),
    visible: ({ device, shape: [, rows, keys] }) => {
      const ones = device.tensor([1]).broadcastTo([1, rows!, keys!]);
      return maskAttention(ones, segments, { ...options, hidden: 0 }).at(0);
    },
  };
}
