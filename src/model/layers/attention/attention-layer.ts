import { rope, ropePair } from "../../../kernels/attention/rope.ts";
import type { Tensor } from "../../../tensor/tensor.ts";
import type { LinearGroup } from "../../checkpoint/weights/linear-group.ts";
import type { Linear } from "../../checkpoint/weights/linear-layer.ts";
import type { KeysAndValues } from "../../walk/key-value-store.ts";
import type { AttentionRule } from "../../walk/masks.ts";
import type { Pass } from "../../walk/pass.ts";
import type { RowMap } from "../../walk/row-map.ts";
import type { Sites, Walk } from "../../walk/site-events.ts";
import type { Norm } from "../norm.ts";
import type { Rotary } from "../rope/rope-tables.ts";
import { type Mixing, mixed } from "./attention-mix.ts";

/** Attention of one block. */
export interface Attention extends Mixing {
  readonly q: Linear;
  readonly k: Linear;
  readonly v: Linear;
  readonly o: Linear;
  /** Queries, keys and values of the same rows; without it each is a product of its own. */
  readonly qkv?: LinearGroup;
  /** Of queries and keys, before RoPE (Qwen 3, OLMo 2). */
  readonly qNorm?: Norm;
  readonly kNorm?: Norm;
  /** Absent where positions enter elsewhere. */
  readonly rope?: Rotary;
}

/** Rows of which keys and values are made, where they are others than those of the queries; RoPE does not turn them. */
export interface KeyRows {
  /** [keys, width that k and v read] */
  readonly x: Tensor;
  /** What sites call them. */
  readonly rows: RowMap;
}

/**
 * Multi-head attention (grouped-query where k and v have fewer heads) up to, and without, the output projection.
 * x: [rows, width] → z: [rows, heads * headDim].
 *
 * Sites: q, k and v as projected; q_norm and k_norm where there are norms, both before RoPE; scores (after the soft cap, with
 * the bias) and pattern [heads, rows, keys], which are materialised, of one sequence after the
 * other, only when in use; z.
 *
 * @param from what keys and values are made of; default x
 */
export function* attend(
  w: Attention,
  x: Tensor,
  layer: number,
  rule: AttentionRule,
  pass: Pass,
  from?: KeyRows,
): Walk<Tensor> {
  const at = pass.sites(layer);
  const own = from ? undefined : projected(w, x);
  const queries = yield* queriesOf(w, x, at, own);
  const ofRows = yield* keysAndValuesOf(
    w,
    from?.x ?? x,
    from ? pass.sites(layer, { rows: from.rows }) : at,
    own,
  );
  const { v } = ofRows;
  const [q, k] = from ? [rotated(w, queries, pass), ofRows.k] : rotatedPair(w, [queries, ofRows.k], pass);
  let end = 0;
  const keys = pass.parts.map((part) => {
    if (part === pass) return pass.keys.use(layer, { k, v });
    end += part.rows.length;
    const start = end - part.rows.length;
    return part.keys.use(layer, { k: k.rows(start, end), v: v.rows(start, end) });
  });
  return yield* mixed(w, q, keys, layer, rule, pass);
}

function rotated({ rope: rotary, headDim }: Attention, x: Tensor, pass: Pass): Tensor {
  if (!rotary) return x;
  const { positions, table } = rotary.angles(pass);
  return rope(x, positions, table, { headDim });
}

function rotatedPair(
  { rope: rotary, headDim }: Attention,
  pair: readonly [Tensor, Tensor],
  pass: Pass,
): readonly [Tensor, Tensor] {
  if (!rotary) return pair;
  const { positions, table } = rotary.angles(pass);
  return ropePair(pair, positions, table, { headDim });
}

/** What the projections make of rows x [rows, width], before their sites. */
interface Projected {
  readonly q: Tensor;
  readonly k: Tensor;
  readonly v: Tensor;
}

function projected({ qkv }: Attention, x: Tensor): Projected | undefined {
  if (!qkv) return undefined;
  const [q, k, v] = qkv.apply(x) as [Tensor, Tensor, Tensor];
  return { q, k, v };
}

/** Queries up to RoPE: [rows, heads * headDim]. */
export function* queriesOf(w: Attention, x: Tensor, at: Sites, from?: Projected): Walk<Tensor> {
  const q = yield* at.pass("q", from?.q ?? w.q.apply(x));
  return w.qNorm ? yield* at.pass("q_norm", w.qNorm(q)) : q;
}

/** Keys, up to RoPE, and values: each [rows, kvHeads * headDim]. */
export function* keysAndValuesOf(w: Attention, x: Tensor, at: Sites, from?: Projected): Walk<KeysAndValues> {
  const own = yield* at.pass("k", from?.k ?? w.k.apply(x));
  const k = w.kNorm ? yield* at.pass("k_norm", w.kNorm(own)) : own;
  return { k, v: yield* at.pass("v", from?.v ?? w.v.apply(x)) };
}
