import { DTypeError, LifetimeError, SiteError } from "../errors.ts";
import { greater, notEqual, select } from "../kernels/elementwise/compare.ts";
import { abs, div, mul } from "../kernels/elementwise/elementwise.ts";
import { concat } from "../kernels/movement/concat.ts";
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
import type { SiteEvent } from "../model/walk/sites.ts";
import type { Device } from "../tensor/device.ts";
import { isFloat } from "../tensor/dtype.ts";
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

const PROJECTIONS: ReadonlySet<EditOperation> = new Set(["projectOut", "projectOnto"]);
const NEEDS_VALUE: ReadonlySet<EditOperation> = new Set(["set", "add", "interpolate", ...PROJECTIONS]);

/**
 * The value of an edit on the device: [features] or [positions, features]. Throws SiteError when it is missing or does
 * not fit the site or names no direction where one is needed, LifetimeError for a tensor that is gone or of another
 * device. Keys of scores and patterns are counted only when the edit is applied.
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
    if (value.disposed) throw new LifetimeError(`${target.label}: the value ${value} has been disposed of`);
    if (value.device !== device) {
      throw new LifetimeError(`${target.label}: the value ${value} lives on another device than the model`);
    }
    if (!isFloat(value.dtype)) throw new DTypeError(`${target.label}: expected floats, found ${value.dtype}`);
    const [n, w] = value.rank === 1 ? [rows, value.dim(0)] : [value.dim(0), value.dim(1)];
    if (value.rank < 1 || value.rank > 2 || n !== rows || (width !== undefined && w !== width)) {
      reject(showShape(value.shape));
    }
    return value.alias(); // the caller may dispose of it while a generation goes on
  }
  const size = width ?? value.length;
  const whole = rows !== undefined && value.length === rows * size;
  if (value.length !== size && !whole) reject(`${value.length} numbers`);
  const shape = value.length === size ? [size] : [rows!, size];
  const numbers = PROJECTIONS.has(edit.operation) ? directions(value, size, target) : value;
  const large = Array.isArray(numbers) ? numbers.find((x) => Number.isFinite(x) && !isF32(x)) : undefined;
  if (large !== undefined) throw new SiteError(`${target.label}: ${large} is beyond the range of f32`);
  return device.tensor(numbers, { shape });
}

/**
 * Looks at the directions that are tensors, which waits for the device. Throws SiteError for one that is all 0 or holds
 * what is not finite.
 */
export async function checkDirections(edits: readonly ResolvedEdit[]): Promise<void> {
  const onDevice = edits.filter(
    ({ edit }) => PROJECTIONS.has(edit.operation) && edit.value instanceof Tensor,
  );
  const [first] = onDevice;
  if (!first) return;
  const { device } = first.value!;
  const sizes = device.scope(() => onDevice.map(({ value }) => max(abs(value!), -1)));
  const read = await device.read(sizes);
  for (const size of sizes) size.dispose();
  onDevice.forEach(({ target }, i) => {
    // Scores have -infinity where their row does not attend.
    const infinite = target.layout === "attention";
    for (const largest of read[i]!) checkDirection(infinite ? Math.min(largest, 1) : largest, target);
  });
}

/** Throws SiteError when the largest magnitude of a direction's numbers is none. */
function checkDirection(largest: number, { label }: Target): void {
  if (largest > 0 && largest < Number.POSITIVE_INFINITY) return;
  const found = largest === 0 ? "zeros alone" : largest;
  throw new SiteError(`${label}: expected a direction of finite numbers, not all 0, found ${found}`);
}

const isF32 = (x: number) => Number.isFinite(Math.fround(x));

/** Directions of `size` numbers each, with a largest magnitude of 1, so that those of any length fit f32. */
function directions(value: ArrayLike<number>, size: number, target: Target): Float32Array {
  const scaled = new Float32Array(value.length);
  for (let start = 0; start < value.length; start += size) {
    const row = Array.from({ length: size }, (_, i) => value[start + i]!);
    const attended = target.layout === "attention" ? row.filter((x) => x !== Number.NEGATIVE_INFINITY) : row;
    const largest = attended.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
    checkDirection(largest, target);
    scaled.set(
      row.map((x) => x / largest),
      start,
    );
  }
  return scaled;
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
  let rowValue = value?.rank === 2 ? takeRows(value, fromValue) : value;
  if (PROJECTIONS.has(edit.operation)) rowValue = withoutZeros(rowValue!);
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

/** Directions whose largest magnitude is 1; what has no direction is NaN, so that it does not pass for no component. */
function withoutZeros(value: Tensor): Tensor {
  return div(value, max(abs(value), -1, { keepDims: true }));
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
