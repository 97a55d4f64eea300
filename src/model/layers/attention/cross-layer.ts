import { add, mul, tanh } from "../../../kernels/elementwise/elementwise.ts";
import { cast } from "../../../kernels/movement/copy.ts";
import type { Tensor } from "../../../tensor/tensor.ts";
import type { Prompt } from "../../prompt/prompt.ts";
import type { AttentionRule } from "../../walk/masks.ts";
import type { Pass } from "../../walk/pass.ts";
import type { Walk } from "../../walk/site-events.ts";
import type { LayerSite } from "../../walk/sites.ts";
import type { Block } from "../../walk/stack.ts";
import type { Mlp } from "../mlp.ts";
import type { Norm } from "../norm.ts";
import type { Attention } from "./attention-layer.ts";
import { attendAcross } from "./cross-attention.ts";

/** A layer that has gated cross-attention in place of self-attention (Llama 3.2 Vision). */
export interface CrossLayerParts {
  readonly attentionNorm: Norm;
  readonly attention: Attention;
  readonly mlpNorm: Norm;
  readonly mlp: Mlp;
  /** What attention and MLP add is gated by tanh of these: each [1, 1]. */
  readonly attentionAlpha: Tensor;
  readonly mlpAlpha: Tensor;
  /** Which of the context's rows a query reads. */
  readonly rule: AttentionRule;
  /** Whether a token is to see a picture; where not, the MLP adds nothing, whatever attention reads. */
  sees(position: number, prompt: Prompt): boolean;
  /** Its sites, any of which makes it run where there are no pictures. */
  readonly sites: readonly LayerSite[];
}

/** No position reads another one. */
const itself: AttentionRule = (position) => ({ start: position, end: position + 1 });

export function crossLayer(parts: CrossLayerParts): Block {
  return { rule: itself, crossRule: parts.rule, run: (x, index, pass) => run(parts, x, index, pass) };
}

/** x: [rows, width] → [rows, width]. Rows of prompts without pictures stay as they are. */
function* run(b: CrossLayerParts, input: Tensor, index: number, pass: Pass): Walk<Tensor> {
  const at = pass.sites(index);
  const marked = pass.sites(index, { mark: "x" });
  if (!hasPictures(pass) && !b.sites.some((site) => at.uses(site))) return input;
  const x = yield* at.pass("resid_pre", input);
  const attentionIn = yield* marked.pass("attn_in", b.attentionNorm(x));
  const z = yield* attendAcross(b.attention, attentionIn, index, b.rule, pass);
  const pictured = pass.table(CROSS, (whole) => rowsThat(whole, (_, prompt) => prompt.images.length > 0)); // [rows, 1]
  const attentionGate = yield* at.pass("xattn_gate", mul(pictured, gateOf(b.attentionAlpha)));
  const attended = yield* marked.pass("attn_out", mul(b.attention.o.apply(z), attentionGate));
  const mid = yield* at.pass("resid_mid", add(x, attended));
  const mlpIn = yield* at.pass("mlp_in", b.mlpNorm(mid));
  const hidden = yield* b.mlp.hidden(mlpIn, at, pass); // [rows, mlpWidth]
  const open = pass.table(b.sees, (whole) => rowsThat(whole, b.sees)); // [rows, 1]
  const mlpGate = yield* at.pass("xmlp_gate", mul(open, gateOf(b.mlpAlpha)));
  const added = yield* at.pass("mlp_out", mul(b.mlp.out.apply(hidden), mlpGate));
  return yield* at.pass("resid_post", add(mid, added));
}

const CROSS = {};

function hasPictures(pass: Pass): boolean {
  return pass.rows.spans.some(({ sequence }) => pass.prompt(sequence)!.images.length > 0);
}

function gateOf(alpha: Tensor): Tensor {
  return tanh(cast(alpha, "f32"));
}

/** 1 for rows that fulfil something, else 0: f32 [rows, 1]. */
function rowsThat(pass: Pass, holds: (position: number, prompt: Prompt) => boolean): Tensor {
  const values = Float32Array.from(pass.rows.entries(), ({ sequence, position }) =>
    holds(position, pass.prompt(sequence)!) ? 1 : 0,
  );
  return pass.device.tensor(values, { shape: [values.length, 1] });
}
