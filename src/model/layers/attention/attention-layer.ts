import type { Tensor } from "../../../tensor/tensor.ts";
import type { LinearGroup } from "../../checkpoint/weights/linear-group.ts";
import type { Linear } from "../../checkpoint/weights/linear-layer.ts";
import type { AttentionRule } from "../../walk/masks.ts";
import type { Pass } from "../../walk/pass.ts";
import type { RowMap } from "../../walk/row-map.ts";
import type { Walk } from "../../walk/site-events.ts";
import type { Norm } from "../norm.ts";
import type { Rotary } from "../rope/rope-tables.ts";
import { type Mixing, mixed } from "./attention-mix.ts";
import { projected } from "./projections.ts";

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
  const { q, k, v } = yield* projected(w, x, layer, pass, from);
  let end = 0;
  const keys = pass.parts.map((part) => {
    if (part === pass) return pass.keys.use(layer, { k, v });
    end += part.rows.length;
    const start = end - part.rows.length;
    return part.keys.use(layer, { k: k.rows(start, end), v: v.rows(start, end) });
  });
  return yield* mixed(w, q, keys, layer, rule, pass);
}
