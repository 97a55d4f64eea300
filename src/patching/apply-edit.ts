import { concat } from "../kernels/concat.ts";
import {
  addRows,
  interpolateRows,
  keepDirectionRows,
  projectOutRows,
  scaleRows,
  setRows,
  zeroRows,
} from "../kernels/rows.ts";
import { takeRows } from "../model/forward.ts";
import type { SiteEvent } from "../model/sites.ts";
import type { Device } from "../tensor/device.ts";
import { SiteError } from "../tensor/errors.ts";
import { showShape } from "../tensor/shape.ts";
import { Tensor } from "../tensor/tensor.ts";
import type { Edit, EditOperation } from "./edit.ts";
import type { FeatureRange, Target } from "./site-targets.ts";

/** An edit worked out for the prompts of a run. */
export interface ResolvedEdit {
  readonly edit: Edit;
  readonly target: Target;
  readonly value: Tensor | undefined;
}

const NEEDS_VALUE: ReadonlySet<EditOperation> = new Set([
  "set",
  "add",
  "interpolate",
  "projectOut",
  "projectOnto",
]);

/**
 * The value of an edit on the device: [features] or [positions, features]. Throws SiteError when it is missing or does
 * not fit the site. Keys of scores and patterns are counted only when the edit is applied.
 */
export function editValue(edit: Edit, target: Target, device: Device): Tensor | undefined {
  if (!NEEDS_VALUE.has(edit.operation)) return undefined;
  const { value } = edit;
  if (value === undefined) throw new SiteError(`${target.label}: the edit has no value`);
  const { width } = target;
  const counts = new Set([...target.positions.values()].map((p) => p.length));
  const rows = counts.size === 1 ? [...counts][0]! : undefined;
  const perRow = rows === undefined ? "" : ` or [${rows}, ${width ?? "keys"}]`;
  const reject = (found: string): never => {
    throw new SiteError(`${target.label}: expected a value [${width ?? "keys"}]${perRow}, found ${found}`);
  };
  if (value instanceof Tensor) {
    if (value.device !== device) throw new SiteError(`${target.label}: the value lives on another device`);
    const [n, w] = value.rank === 1 ? [rows, value.dim(0)] : [value.dim(0), value.dim(1)];
    if (value.rank < 1 || value.rank > 2 || n !== rows || (width !== undefined && w !== width)) {
      reject(showShape(value.shape));
    }
    return value;
  }
  const size = width ?? value.length;
  if (value.length === size) return device.tensor(value, { shape: [size] });
  if (rows !== undefined && value.length === rows * size)
    return device.tensor(value, { shape: [rows, size] });
  return reject(`${value.length} numbers`);
}

/** Applies an edit to those of its rows that the event holds. `rows` counts their positions. */
export function applyEdit(resolved: ResolvedEdit, event: SiteEvent): { value: Tensor; rows: number } {
  return event.layout === "rows" ? editRows(resolved, event) : editAttention(resolved, event);
}

/** Site values [rows, features]: one call for the rows of all sequences. */
function editRows({ edit, target, value }: ResolvedEdit, event: SiteEvent): { value: Tensor; rows: number } {
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
  const rowValue = value?.rank === 2 ? takeRows(value, fromValue) : value;
  return { value: change(event.value, found, edit, rowValue, target.features), rows: found.length };
}

/**
 * Scores and patterns [heads, rows, keys]: sequence by sequence, since each has columns of its own (in a resumed run in
 * two places: those of the recorded prefix, and its own).
 */
function editAttention(
  { edit, target, value }: ResolvedEdit,
  event: SiteEvent,
): { value: Tensor; rows: number } {
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
    const perHead = value?.rank === 2 ? target.heads.flatMap(() => found.map(({ i }) => i)) : undefined;
    const picked = takeRows(flat, ids);
    const own = concat(
      columns.map((span) => picked.slice(1, span.row, span.row + span.count)),
      1,
    );
    const changed = change(own, [...ids.keys()], edit, value && perHead ? takeRows(value, perHead) : value);
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

function change(
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
  }
}
