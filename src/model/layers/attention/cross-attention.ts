import { add, mul, tanh } from "../../../kernels/elementwise/elementwise.ts";
import { cast, contiguous } from "../../../kernels/movement/copy.ts";
import type { Tensor } from "../../../tensor/tensor.ts";
import type { KeysToUse } from "../../walk/key-value-store.ts";
import type { AttentionRule } from "../../walk/masks.ts";
import type { Pass } from "../../walk/pass.ts";
import type { Walk } from "../../walk/site-events.ts";
import type { Mlp } from "../mlp.ts";
import type { Norm } from "../norm.ts";
import type { Attention } from "./attention-layer.ts";
import { mixed } from "./attention-mix.ts";
import { keysAndValuesOf, queriesOf } from "./projections.ts";

/** A gated block of cross-attention and an MLP (Flamingo, Alayrac et al. 2022, arXiv 2204.14198). */
export interface CrossParts {
  readonly attention: Attention;
  readonly mlp: Mlp;
  readonly attentionNorm: Norm;
  readonly mlpNorm: Norm;
  /** What attention and MLP add is gated by tanh of these: [1, 1], or [1, width]. Rows that see nothing get 0 from attention. */
  readonly attentionAlpha: Tensor;
  readonly mlpAlpha: Tensor;
  /** Which of the context's rows a query sees, counted through all that its sequence reads. */
  readonly rule: AttentionRule;
}

/** x: [rows, width] → [rows, width]. */
export function* crossBlock(b: CrossParts, x: Tensor, index: number, pass: Pass): Walk<Tensor> {
  const at = pass.sites(index);
  const marked = pass.sites(index, { mark: "x" });
  const attentionIn = yield* marked.pass("attn_in", b.attentionNorm(x));
  const z = yield* attendAcross(b.attention, attentionIn, index, b.rule, pass);
  const open = pass.table(b, (whole) => seesAnything(whole, b.rule)); // [rows, 1]
  const attentionGate = yield* at.pass("xattn_gate", mul(open, gateOf(b.attentionAlpha)));
  const attended = yield* marked.pass("attn_out", mul(b.attention.o.apply(z), attentionGate));
  const mid = yield* marked.pass("resid_mid", add(x, attended));
  const mlpIn = yield* marked.pass("mlp_in", b.mlpNorm(mid));
  const hidden = yield* b.mlp.hidden(mlpIn, marked, pass);
  const gate = gateOf(b.mlpAlpha);
  const mlpGate = at.uses("xmlp_gate")
    ? yield* at.pass("xmlp_gate", contiguous(gate.broadcastTo([x.dim(0), gate.dim(1)])))
    : gate;
  return add(mid, yield* marked.pass("mlp_out", mul(b.mlp.out.apply(hidden), mlpGate)));
}

function gateOf(alpha: Tensor): Tensor {
  return tanh(cast(alpha, "f32"));
}

/**
 * Attention to the rows of another stack, which the pass has as its context; without RoPE. x: [rows, width] → z: [rows,
 * heads * headDim], 0 for rows that see nothing. Its sites are those of `attend`, with xattn_ in front; k and v are those of the
 * context's rows, computed where they are not kept from earlier.
 */
export function* attendAcross(
  w: Attention,
  x: Tensor,
  layer: number,
  rule: AttentionRule,
  pass: Pass,
): Walk<Tensor> {
  const q = yield* queriesOf(w, x, pass.sites(layer, { mark: "xattn_" }));
  const keys: (KeysToUse | undefined)[] = [];
  for (const part of pass.parts) keys.push(yield* keysOfContext(w, layer, part));
  return yield* mixed(w, q, keys, layer, rule, pass.across, "xattn_");
}

function* keysOfContext(w: Attention, layer: number, pass: Pass): Walk<KeysToUse | undefined> {
  const { context } = pass;
  const kept = context.kept(layer);
  if (kept || !context.source) return kept;
  const { x, rows, named = rows } = context.source;
  const computed = yield* keysAndValuesOf(w, x, pass.sites(layer, { rows: named, mark: "xattn_" }));
  return context.use(layer, computed);
}

/** 1 for rows that see any of the context, else 0: f32 [rows, 1]. */
function seesAnything(pass: Pass, rule: AttentionRule): Tensor {
  const open = Float32Array.from(pass.rows.entries(), ({ sequence, position }) => {
    const { start, end } = rule(position, { prompt: pass.prompt(sequence) });
    return end > start ? 1 : 0;
  });
  return pass.device.tensor(open, { shape: [open.length, 1] });
}
