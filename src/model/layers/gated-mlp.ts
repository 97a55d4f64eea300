import { type ActivationKind, gatedActivation } from "../../kernels/elementwise/activation.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { Linear } from "../checkpoint/weights/linear.ts";
import type { Sites, Walk } from "../walk/sites.ts";

export interface GatedMlpWeights {
  readonly gate: Linear;
  readonly up: Linear;
  readonly down: Linear;
}

/**
 * down(act(gate(x)) * up(x)), x: [rows, width], up to and without the down projection (Shazeer 2020, arXiv 2002.05202).
 * Sites: mlp_pre is the gate before its activation, mlp_act the product that the down projection reads.
 */
export function* gatedMlpHidden(
  w: GatedMlpWeights,
  x: Tensor,
  kind: ActivationKind,
  at: Sites,
): Walk<Tensor> {
  const gate = yield* at.pass("mlp_pre", w.gate.apply(x)); // [rows, mlpWidth]
  return yield* at.pass("mlp_act", gatedActivation(gate, w.up.apply(x), kind));
}
