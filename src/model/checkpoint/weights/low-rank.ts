import { mul } from "../../../kernels/elementwise/elementwise.ts";
import { linear } from "../../../kernels/matmul/linear.ts";
import type { Tensor } from "../../../tensor/tensor.ts";

/** `scale · b a` is added to a weight [out, in]. */
export interface LowRankUpdate {
  /** [rank, in] */
  readonly a: Tensor;
  /** [out, rank] */
  readonly b: Tensor;
  readonly scale: number;
}

/** The weight [out, in], any float dtype, with its updates added: f32 [out, in]. Needs at least one update. */
export function merged(weight: Tensor, updates: readonly LowRankUpdate[]): Tensor {
  return weight.device.scope(() =>
    updates.reduce((sum, { a, b, scale }) => linear(mul(b, scale), a.transpose(), { add: sum }), weight),
  );
}

/** y [rows, out] plus what the updates make of x [rows, in], without ever forming the product of `b` and `a`. */
export function addLowRank(y: Tensor, x: Tensor, updates: readonly LowRankUpdate[]): Tensor {
  return updates.reduce((sum, { a, b, scale }) => linear(mul(linear(x, a), scale), b, { add: sum }), y);
}
