import { mul } from "../../../kernels/elementwise/elementwise.ts";
import { linear } from "../../../kernels/matmul/linear.ts";
import type { Tensor } from "../../../tensor/tensor.ts";
import type { RowPart } from "./row-parts.ts";

/** `scale · b a` is added to a weight [out, in]. */
export interface LowRankUpdate {
  /** [rank, in] */
  readonly a: Tensor;
  /** [out, rank] */
  readonly b: Tensor;
  readonly scale: number;
  /** Of the rows of `b`, those of this layer, where one matrix holds several. */
  readonly part?: RowPart;
}

/** The weight [out, in], any float dtype, with its updates added: f32 [out, in]. Needs at least one update. */
export function merged(weight: Tensor, updates: readonly LowRankUpdate[]): Tensor {
  return weight.device.scope(() =>
    updates.reduce(
      (sum, update) => linear(mul(rowsOf(update), update.scale), update.a.transpose(), { add: sum }),
      weight,
    ),
  );
}

/** y [rows, out] plus what the updates make of x [rows, in], without ever forming the product of `b` and `a`. */
export function addLowRank(y: Tensor, x: Tensor, updates: readonly LowRankUpdate[]): Tensor {
  return updates.reduce(
    (sum, update) => linear(mul(linear(x, update.a), update.scale), rowsOf(update), { add: sum }),
    y,
  );
}

function rowsOf({ b, part }: LowRankUpdate): Tensor {
  return part ? part.take(b) : b;
}
