import { SiteError } from "../errors.ts";
import { abs, div } from "../kernels/elementwise/elementwise.ts";
import {
  addRows,
  interpolateRows,
  keepDirectionRows,
  projectOutRows,
  scaleRows,
  setRows,
  zeroRows,
} from "../kernels/movement/row-edits.ts";
import { max } from "../kernels/reduction/reduce.ts";
import { takeRows } from "../model/walk/forward.ts";
import type { SiteEvent } from "../model/walk/site-events.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { Edit } from "./edit.ts";
import { transformed } from "./edit-transform.ts";
import { PROJECTIONS, type ResolvedEdit } from "./edit-value.ts";
import type { FeatureRange } from "./site-targets.ts";

/** What an edit makes of a site's value. */
export interface Edited {
  readonly value: Tensor;
  /** Number of positions that it was applied to: those that the event holds. */
  readonly rows: number;
}

/** Applies an edit to a value [rows, features]: one call for the rows of all sequences. */
export function editRows({ edit, target, value }: ResolvedEdit, event: SiteEvent): Edited {
  const found: number[] = [];
  const fromValue: number[] = [];
  for (const [sequence, positions] of target.positions) {
    positions.forEach((position, i) => {
      const row = event.rows.row(sequence, position);
      if (row === undefined) return;
      found.push(row);
      fromValue.push(i);
    });
  }
  if (found.length === 0) return { value: event.value, rows: 0 };
  if (edit.transform) {
    return { value: transformed(event.value, found, edit.transform, target), rows: found.length };
  }
  let rowValue = value?.rank === 2 ? takeRows(value, fromValue) : value;
  if (PROJECTIONS.has(edit.operation)) rowValue = withoutZeros(rowValue!);
  return { value: change(event.value, found, edit, rowValue, target.features), rows: found.length };
}

/** Directions whose largest magnitude is 1; what has no direction is NaN, so that it does not pass for no component. */
function withoutZeros(value: Tensor): Tensor {
  return div(value, max(abs(value), -1, { keepDims: true }));
}

/** The rows of x [n, features] as an edit without a function leaves them. */
export function change(
  x: Tensor,
  rows: readonly number[],
  { operation, amount = 1 }: Edit,
  value: Tensor | undefined,
  features?: FeatureRange,
): Tensor {
  const options = features ? { features } : {};
  switch (operation) {
    case "set":
      return setRows(x, rows, value!, options);
    case "add":
      return addRows(x, rows, value!, { factor: amount, ...options });
    case "scale":
      return scaleRows(x, rows, amount, options);
    case "zero":
      return zeroRows(x, rows, options);
    case "interpolate":
      return interpolateRows(x, rows, value!, amount, options);
    case "projectOut":
      return projectOutRows(x, rows, value!, options);
    case "projectOnto":
      return keepDirectionRows(x, rows, value!, options);
    case "transform":
      throw new SiteError("only sites whose rows are tokens take a function");
  }
}
