import { SiteError } from "../errors.ts";
import { greater, notEqual, select } from "../kernels/elementwise/compare.ts";
import { mul } from "../kernels/elementwise/elementwise.ts";
import { concat } from "../kernels/movement/concat.ts";
import { setRows } from "../kernels/movement/row-edits.ts";
import { takeRows } from "../model/walk/forward.ts";
import type { SiteEvent } from "../model/walk/site-events.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { Edit } from "./edit.ts";
import { change, type Edited } from "./edit-rows.ts";
import { PROJECTIONS, type ResolvedEdit } from "./edit-value.ts";

/**
 * Applies an edit to scores or a pattern [heads, rows, keys]: sequence by sequence, since each has columns of its own (in a resumed run in
 * two places: those of the recorded prefix, and its own).
 */
export function editAttention({ edit, target, value }: ResolvedEdit, event: SiteEvent): Edited {
  const [heads, rows, keys] = event.value.shape as [number, number, number];
  let flat = event.value.reshape([heads * rows, keys]);
  let count = 0;
  for (const [sequence, positions] of target.positions) {
    const found = positions.flatMap((position, i) => {
      const row = event.rows.row(sequence, position);
      return row === undefined ? [] : [{ row, i }];
    });
    if (found.length === 0) continue;
    const columns = event.keys!.of(sequence);
    const width = columns.reduce((sum, span) => sum + span.count, 0);
    if (value && value.dim(-1) !== width) {
      throw new SiteError(`${target.label}: expected values for ${width} keys, found ${value.dim(-1)}`);
    }
    const ids = target.heads.flatMap((head) => found.map(({ row }) => head * rows + row));
    const perHead = <T>(list: readonly T[]) => target.heads.flatMap(() => list);
    const ofSequence = (x: Tensor) =>
      concat(
        columns.map((span) => x.slice(1, span.row, span.row + span.count)),
        1,
      );
    const own = ofSequence(takeRows(flat, ids));
    const vector = value?.rank === 2 ? takeRows(value, perHead(found.map(({ i }) => i))) : value;
    let changed: Tensor;
    if (PROJECTIONS.has(edit.operation)) {
      const visible = takeRows(event.mask!.visible(event.value), perHead(found.map(({ row }) => row)));
      changed = projectVisible(own, ofSequence(visible), edit, vector!);
    } else changed = change(own, [...ids.keys()], edit, vector);
    let column = 0;
    for (const span of columns) {
      const features = { start: span.row, end: span.row + span.count };
      flat = setRows(flat, ids, changed.slice(1, column, column + span.count), { features });
      column += span.count;
    }
    count += found.length;
  }
  return { value: flat.reshape(event.value.shape), rows: count };
}

/** A projection of rows [rows, keys] within the keys that each attends to; the others stay as they are. */
function projectVisible(x: Tensor, visible: Tensor, edit: Edit, direction: Tensor): Tensor {
  const attended = mul(greater(visible, 0), notEqual(x, Number.NEGATIVE_INFINITY));
  const rows = [...Array(x.dim(0)).keys()];
  const changed = change(select(attended, x, 0), rows, edit, select(attended, direction, 0));
  return select(attended, changed, x);
}
