import { add } from "../../kernels/elementwise/elementwise.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { Linear } from "../checkpoint/weights/linear.ts";
import type { Sites, Walk } from "../walk/sites.ts";

/**
 * The residual stream plus the output of a sublayer: x + out(hidden). Where the contribution's site is not in use, the
 * sum happens inside the matrix product, which gives the same numbers.
 */
export function* addOutput(
  x: Tensor,
  hidden: Tensor,
  out: Linear,
  site: "attn_out" | "mlp_out",
  at: Sites,
): Walk<Tensor> {
  if (!at.uses(site)) return out.apply(hidden, { add: x });
  return add(x, yield* at.pass(site, out.apply(hidden)));
}
