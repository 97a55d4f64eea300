import { equal, less, select } from "../../kernels/elementwise/compare.ts";
import { abs, add, div, mul, neg, square, sub } from "../../kernels/elementwise/elementwise.ts";
import { cast } from "../../kernels/movement/copy.ts";
import { gatherRows } from "../../kernels/movement/gather.ts";
import {
  type EditKind,
  type EditRowsAttributes,
  editOperation,
  keepDirectionRows,
  projectOutRows,
  scaleRows,
  zeroRows,
} from "../../kernels/movement/row-edits.ts";
import { max, sum } from "../../kernels/reduction/reduce.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { type BackwardCall, rule } from "../rule.ts";

const PROJECTIONS: ReadonlySet<EditKind> = new Set(["projectOut", "keepDirection"]);

/** Inputs are x, the row indices where the attributes name no range, and the value where the kind has one. */
export const editRowsRule = rule<EditRowsAttributes>({
  operation: editOperation,
  needs({ kind, rows }, wanted) {
    const value = rows ? 1 : 2;
    const projects = PROJECTIONS.has(kind);
    return {
      inputs: [...(projects && wanted(value) ? [0] : []), ...(rows ? [] : [1]), ...(projects ? [value] : [])],
    };
  },
  backward(call) {
    const value = call.attributes.rows ? 1 : 2;
    const gradients: (Tensor | undefined)[] = call.inputs.map(() => undefined);
    if (call.wanted(0)) gradients[0] = gradientOfRows(call);
    if (call.wanted(value) && !call.inputs[value]!.shape.includes(0)) {
      const each = gradientOfValue(call);
      gradients[value] = each && call.inputs[value]!.shape.length === 1 ? sum(each, 0) : each;
    }
    return gradients;
  },
});

/** With respect to x. What was overwritten has none, whatever the cotangent holds; the edits of x itself are their own adjoints. */
function gradientOfRows(call: BackwardCall<EditRowsAttributes>): Tensor {
  const { cotangent: dy, attributes } = call;
  const { kind, rows, amount, features } = attributes;
  const at = rows ?? call.value(1);
  const value = rows ? 1 : 2;
  switch (kind) {
    case "set":
    case "zero":
      return zeroRows(dy, at, { features });
    case "add":
      return dy;
    case "scale":
      return scaleRows(dy, at, amount, { features });
    case "interpolate":
      if (amount === 0) return dy;
      return amount === 1 ? zeroRows(dy, at, { features }) : scaleRows(dy, at, 1 - amount, { features });
    case "projectOut":
      return projectOutRows(dy, at, call.value(value), { features });
    case "keepDirection":
      return keepDirectionRows(dy, at, call.value(value), { features });
  }
}

/** With respect to the value's row for each selected row: f32 [n, features]. */
function gradientOfValue(call: BackwardCall<EditRowsAttributes>): Tensor | undefined {
  const { kind, amount } = call.attributes;
  const dy = selected(call, call.cotangent);
  switch (kind) {
    case "set":
      return dy;
    case "add":
      return mul(dy, amount);
    case "interpolate":
      if (amount === 0) return undefined;
      return amount === 1 ? dy : mul(dy, amount);
    case "keepDirection":
      return gradientOfDirection(call, dy);
    case "projectOut":
      return neg(gradientOfDirection(call, dy));
    default:
      return undefined;
  }
}

/**
 * Of the component P x = v <v, x> / <v, v> with respect to v: (<v, x> (g - P g) + <v, g> (x - P x)) / <v, v>. For a direction of
 * zeros, along which there is no component, 0.
 */
function gradientOfDirection(call: BackwardCall<EditRowsAttributes>, g: Tensor): Tensor {
  const x = selected(call, call.value(0));
  const v = call.value(call.attributes.rows ? 1 : 2);
  const largest = max(abs(v), -1, { keepDims: true });
  const size = select(equal(largest, 0), 1, largest);
  const u = div(v, size); // squares of v itself might overflow or vanish
  const length = sum(square(u), -1, { keepDims: true });
  const squares = select(equal(length, 0), 1, length);
  const along = (y: Tensor) => div(sum(mul(y, u), -1, { keepDims: true }), squares);
  const across = (y: Tensor, component: Tensor) => sub(y, mul(component, u));
  const [ofX, ofG] = [along(x), along(g)];
  return div(add(mul(ofX, across(g, ofG)), mul(ofG, across(x, ofX))), size);
}

/** The selected rows and features of what is shaped like x, [n, features]; zeros for rows that there are not. */
function selected({ attributes, value, inputs }: BackwardCall<EditRowsAttributes>, of: Tensor): Tensor {
  const { rows, features } = attributes;
  const part = of.slice(1, features.start, features.end);
  if (rows) return part.rows(rows.start, rows.end);
  const ids = cast(value(1), "u32"); // negative ones become large
  const there = less(ids, inputs[0]!.shape[0]!).reshape([ids.size, 1]);
  return select(there, gatherRows(part, ids), 0);
}
