import { SiteError } from "../../errors.ts";
import { add, mul, rsqrt, square, sub } from "../../kernels/elementwise/elementwise.ts";
import { cast } from "../../kernels/movement/copy.ts";
import { mean } from "../../kernels/reduction/reduce.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { Norm } from "./norm.ts";

/**
 * A norm with the scale that it has for certain rows, which makes it linear: the norm of their sum is the sum of what becomes of
 * the parts, plus its bias.
 */
export interface FrozenNorm {
  /** What becomes of a part of the rows: [..., rows, width] → the same. */
  apply(part: Tensor): Tensor;
  /** What a direction behind the norm is in front of it: apply(part) · direction = part · pull(direction). [rows, width] */
  pull(direction: Tensor): Tensor;
  /** f32 [width], on top of the parts. */
  readonly bias: Tensor | undefined;
}

/** x: [rows, width]. Throws SiteError for a norm that does not say what it is made of. */
export function frozenNorm(norm: Norm, x: Tensor): FrozenNorm {
  const { linear } = norm;
  if (!linear) throw new SiteError("expected a norm whose weights are known, found one of another kind");
  const { weight, offset = 0, bias, eps, centred } = linear;
  const centre = (t: Tensor) => (centred ? sub(t, mean(t, -1, { keepDims: true })) : t);
  const scale = rsqrt(add(mean(square(centre(x)), -1, { keepDims: true }), eps)); // [rows, 1]
  const gain = mul(scale, add(cast(weight, "f32"), offset)); // [rows, width]
  return {
    apply: (part) => mul(centre(part), gain),
    // Taking the mean away is symmetric: it may as well be done to the direction.
    pull: (direction) => centre(mul(direction, gain)),
    bias: bias && cast(bias, "f32"),
  };
}
