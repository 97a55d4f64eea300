import { type ActivationKind, activation, gatedActivation } from "../../kernels/elementwise/activation.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { LinearGroup } from "../checkpoint/weights/linear-group.ts";
import type { Linear } from "../checkpoint/weights/linear-layer.ts";
import type { Pass } from "../walk/pass.ts";
import type { Sites, Walk } from "../walk/site-events.ts";

/** The feed-forward half of a block, in two steps, so that its output can be added to the residual stream at once. */
export interface Mlp {
  /** [rows, width] → [rows, mlpWidth], what `out` reads. Sites: mlp_pre, before the activation, and mlp_act. */
  hidden(x: Tensor, at: Sites, pass: Pass): Walk<Tensor>;
  readonly out: Linear;
  /** What is in the place of `out` where it is not the same for all rows of a pass. */
  outOf?(pass: Pass): Pick<Linear, "apply">;
  /** What reads the stream: `in` (the up projection of gated MLPs), and the gate where there is one. */
  readonly in?: Linear;
  readonly gate?: Linear;
}

/** out(act(in(x))). */
export function plainMlp(w: { readonly in: Linear; readonly out: Linear }, kind: ActivationKind): Mlp {
  return {
    *hidden(x, at) {
      const pre = yield* at.pass("mlp_pre", w.in.apply(x));
      return yield* at.pass("mlp_act", activation(pre, kind));
    },
    in: w.in,
    out: w.out,
  };
}

/** down(act(gate(x)) * up(x)) (Shazeer 2020, arXiv 2002.05202). mlp_pre is the gate before its activation. */
export function gatedMlp(
  w: { readonly gate: Linear; readonly up: Linear; readonly down: Linear },
  kind: ActivationKind,
): Mlp {
  const into = new LinearGroup([w.gate, w.up]);
  return {
    *hidden(x, at) {
      // A tape keeps gate and up; made in one, they would have to be computed again.
      const whole = at.uses("mlp_pre") || x.device.isTaped ? undefined : into.gated(x, kind);
      if (whole) return yield* at.pass("mlp_act", whole);
      const [gate, up] = into.apply(x) as [Tensor, Tensor];
      return yield* at.pass("mlp_act", gatedActivation(yield* at.pass("mlp_pre", gate), up, kind));
    },
    in: w.up,
    gate: w.gate,
    out: w.down,
  };
}
