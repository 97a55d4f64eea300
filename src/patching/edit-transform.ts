import { showFound } from "../arguments.ts";
import { LifetimeError, SiteError } from "../errors.ts";
import { setRows } from "../kernels/movement/row-edits.ts";
import { takeRows } from "../model/walk/forward.ts";
import { isFloat } from "../tensor/dtype.ts";
import { sameShape, showShape } from "../tensor/shape.ts";
import { Tensor } from "../tensor/tensor.ts";
import type { RowTransform } from "./edit.ts";
import type { Target } from "./site-targets.ts";

/**
 * x [n, features] with what a function makes of some of its rows in their place. Throws SiteError and LifetimeError where it
 * makes something that cannot stand there.
 */
export function transformed(
  x: Tensor,
  rows: readonly number[],
  fn: RowTransform,
  { features, label }: Pick<Target, "features" | "label">,
): Tensor {
  const own = takeRows(features ? x.slice(1, features.start, features.end) : x, rows);
  const made: unknown = fn(own);
  if (!(made instanceof Tensor && isFloat(made.dtype) && sameShape(made.shape, own.shape))) {
    const found = made instanceof Tensor ? `${made.dtype} ${showShape(made.shape)}` : showFound(made);
    throw new SiteError(`${label}: expected the function to give ${showShape(own.shape)}, found ${found}`);
  }
  if (made.device !== x.device) {
    throw new LifetimeError(`${label}: the function's ${made} lives on another device than the model`);
  }
  return setRows(x, rows, made, features ? { features } : {});
}
