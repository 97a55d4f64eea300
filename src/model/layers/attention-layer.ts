import { type AttentionInputs, type AttentionOptions, attention } from "../../kernels/attention/attention.ts";
import { type AttentionMaskOptions, maskAttention } from "../../kernels/attention/attention-mask.ts";
import {
  attentionMix,
  attentionPattern,
  attentionScores,
} from "../../kernels/attention/attention-pattern.ts";
import { concat } from "../../kernels/movement/concat.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { Linear } from "../checkpoint/weights/linear-layer.ts";
import type { AttentionRule } from "../walk/masks.ts";
import type { Pass } from "../walk/pass.ts";
import type { SequencePart } from "../walk/sequence-part.ts";
import type { AttentionMask, Sites, Walk } from "../walk/site-events.ts";
import { scoped } from "../walk/walk.ts";
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
 * and pattern [heads, rows, keys], which are materialised, of one sequence after the
 * other, only when in use; z.
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

  if (!at.uses("scores") && !at.uses("pattern")) {
    const segments = pass.segments(rule);
    return yield* at.pass("z", attention({ q, ...keys, segments }, options));
  }
  const mixed: Tensor[] = [];
  for (const part of pass.sequences) {
    const inputs = { q: part.rowsOf(q), ...part.keysOf(keys), segments: pass.segments(rule, part) };
    const sites = pass.sites(layer, part);
    mixed.push(yield* scoped(pass.device, () => throughPattern(inputs, options, part, sites)));
  }
  return yield* at.pass("z", mixed.length === 1 ? mixed[0]! : concat(mixed));
}

/** Attention of one sequence step by step, through the sites of its scores and pattern. */
function* throughPattern(
  inputs: AttentionInputs,
  options: AttentionOptions,
  part: SequencePart,
  at: Sites,
): Walk<Tensor> {
  const { segments } = inputs;
  const mask = (hidden: number) => maskOf(segments, { prefixKeys: part.prefix.length, hidden });
  const scores = yield* at.pass("scores", attentionScores(inputs, options), mask(Number.NEGATIVE_INFINITY));
  const pattern = yield* at.pass("pattern", attentionPattern(scores), mask(0)); // [heads, rows, keys]
  return attentionMix(pattern, inputs, options);
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
