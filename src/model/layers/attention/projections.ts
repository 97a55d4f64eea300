import { rope, ropePair } from "../../../kernels/attention/rope.ts";
import type { Tensor } from "../../../tensor/tensor.ts";
import type { KeysAndValues } from "../../walk/key-value-store.ts";
import type { Pass } from "../../walk/pass.ts";
import type { Sites, Walk } from "../../walk/site-events.ts";
import type { Attention, KeyRows } from "./attention-layer.ts";

/** What a block's projections make of rows. */
interface Projected extends KeysAndValues {
  /** [rows, heads * headDim] */
  readonly q: Tensor;
}

/**
 * Queries, keys and values as attention takes them: through their sites, and turned by RoPE.
 * x: [rows, width]; keys and values are made of `from`, by default of the same rows (in one product, see `LinearGroup`).
 */
export function* projected(
  w: Attention,
  x: Tensor,
  layer: number,
  pass: Pass,
  from?: KeyRows,
): Walk<Projected> {
  const at = pass.sites(layer);
  const angles = w.rope?.angles(pass);
  const turned = { headDim: w.headDim };
  if (from) {
    const q = yield* queriesOf(w, x, at);
    const ofRows = yield* keysAndValuesOf(w, from.x, pass.sites(layer, { rows: from.rows }));
    return { q: angles ? rope(q, angles.positions, angles.table, turned) : q, ...ofRows };
  }
  const own = together(w, x);
  const q = yield* queriesOf(w, x, at, own?.q);
  const { k, v } = yield* keysAndValuesOf(w, x, at, own);
  if (!angles) return { q, k, v };
  const [turnedQ, turnedK] = ropePair([q, k], angles.positions, angles.table, turned);
  return { q: turnedQ, k: turnedK, v };
}

/** All three before their sites, in one product. */
function together({ qkv }: Attention, x: Tensor): Projected | undefined {
  if (!qkv) return undefined;
  const [q, k, v] = qkv.apply(x) as [Tensor, Tensor, Tensor];
  return { q, k, v };
}

/** Queries up to RoPE: [rows, heads * headDim]. */
export function* queriesOf(w: Attention, x: Tensor, at: Sites, own = w.q.apply(x)): Walk<Tensor> {
  const q = yield* at.pass("q", own);
  return w.qNorm ? yield* at.pass("q_norm", w.qNorm(q)) : q;
}

/** Keys, up to RoPE, and values: each [rows, kvHeads * headDim]. */
export function* keysAndValuesOf(
  w: Attention,
  x: Tensor,
  at: Sites,
  own?: KeysAndValues,
): Walk<KeysAndValues> {
  const projected = yield* at.pass("k", own?.k ?? w.k.apply(x));
  const k = w.kNorm ? yield* at.pass("k_norm", w.kNorm(projected)) : projected;
  return { k, v: yield* at.pass("v", own?.v ?? w.v.apply(x)) };
}
