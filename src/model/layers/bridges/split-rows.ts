import { add } from "../../../kernels/elementwise/elementwise.ts";
import { concat } from "../../../kernels/movement/concat.ts";
import { gatherRows } from "../../../kernels/movement/gather.ts";
import type { Tensor } from "../../../tensor/tensor.ts";
import type { Linear } from "../../checkpoint/weights/linear-layer.ts";
import type { Pass } from "../../walk/pass.ts";
import { RowMap, type RowSpan } from "../../walk/row-map.ts";

/** The rows of a pass in two parts: those of the first positions of each sequence, and the others. */
export interface SplitRows {
  /** Over the former, numbered one after the other. */
  readonly pass: Pass;
  /** [rows, width] → the rows of either part; undefined where all rows are leading ones. */
  leading(x: Tensor): Tensor;
  others(x: Tensor): Tensor | undefined;
  /** Both parts, in the order of the pass: [rows, width]. */
  joined(leading: Tensor, others: Tensor): Tensor;
}

const splits = new WeakMap<Pass, Map<number, SplitRows>>();

/** Splits a pass behind the first `count` positions of each sequence. Its tables live as long as those of the pass. */
export function splitRows(pass: Pass, count: number): SplitRows {
  const known = splits.get(pass) ?? new Map<number, SplitRows>();
  splits.set(pass, known);
  let split = known.get(count);
  if (!split) {
    split = makeSplit(pass, count);
    known.set(count, split);
  }
  return split;
}

function makeSplit(pass: Pass, count: number): SplitRows {
  const leadsOf = ({ position, count: own }: RowSpan) => Math.min(own, Math.max(0, count - position));
  const { spans } = pass.rows;
  const leading = spans.flatMap((span) => rowsOf(span.row, leadsOf(span)));
  if (leading.length === pass.rows.length) {
    return { pass, leading: (x) => x, others: () => undefined, joined: (x) => x };
  }
  const others = spans.flatMap((span) => rowsOf(span.row + leadsOf(span), span.count - leadsOf(span)));
  const back: number[] = [];
  for (const [at, row] of [...leading, ...others].entries()) back[row] = at;
  const part = (rows: readonly number[]) => {
    const key = {};
    const table = () =>
      pass.table(key, ({ device }) => device.tensor(Uint32Array.from(rows), { dtype: "u32" }));
    return (x: Tensor) => gatherRows(x, table());
  };
  const all = part(back);
  let row = 0;
  const packed = spans.flatMap((span) => {
    const own = leadsOf(span);
    row += own;
    return own > 0 ? [{ ...span, row: row - own, count: own }] : [];
  });
  return {
    pass: pass.ofRows(new RowMap(packed)),
    leading: part(leading),
    others: part(others),
    joined: (first, rest) => all(concat([first, rest])),
  };
}

function rowsOf(start: number, count: number): number[] {
  return Array.from({ length: count }, (_, i) => start + i);
}

/** One thing for the leading rows, and another for the others: [rows, width] → [rows, …]. */
export function byRows(
  { leading, others, joined }: SplitRows,
  x: Tensor,
  ofLeading: (rows: Tensor) => Tensor,
  ofOthers: (rows: Tensor) => Tensor,
): Tensor {
  const rest = others(x);
  const first = ofLeading(leading(x));
  return rest ? joined(first, ofOthers(rest)) : first;
}

/** A linear layer for the leading rows and another for the others. */
export function linearByRows(split: SplitRows, leading: Linear, others: Linear): Pick<Linear, "apply"> {
  return {
    apply(x, { add: to } = {}) {
      const y = byRows(
        split,
        x,
        (rows) => leading.apply(rows),
        (rows) => others.apply(rows),
      );
      return to ? add(to, y) : y;
    },
  };
}
