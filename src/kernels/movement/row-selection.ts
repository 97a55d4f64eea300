import { DTypeError, ShapeError } from "../../errors.ts";
import { isFloat } from "../../tensor/dtype.ts";
import { showShape } from "../../tensor/shape.ts";
import { Tensor } from "../../tensor/tensor.ts";

/** start, start + 1, …, end - 1. */
export interface Range {
  /** The first. */
  readonly start: number;
  /** The one behind the last. */
  readonly end: number;
}

/**
 * The rows to edit: a range, indices, or indices on the GPU (u32 or i32 [n]). No row may be named twice. Indices on
 * the GPU cannot be checked by the host: those out of range are passed over, and a repeated row gets one of its edits.
 */
export type RowSelection = Range | readonly number[] | Tensor;

/** A selection that the host has checked: a range, or indices. */
export interface CheckedRows {
  range?: Range;
  indices?: Uint32Array | Tensor;
  count: number;
}

/**
 * Checks a selection among `rows` rows; neighbours in order become a range. Throws ShapeError or DTypeError in the name
 * of the operation.
 */
export function selectRows(name: string, at: RowSelection, rows: number): CheckedRows {
  if (at instanceof Tensor) {
    if (at.rank !== 1)
      throw new ShapeError(`${name}: expected row indices [n], found ${showShape(at.shape)}`);
    if (isFloat(at.dtype)) throw new DTypeError(`${name}: expected integer row indices, found ${at.dtype}`);
    return { indices: at, count: at.size };
  }
  if ("start" in at) return { range: checkRange(name, "rows", at, rows), count: at.end - at.start };
  const outside = at.find((row) => !(Number.isInteger(row) && 0 <= row && row < rows));
  if (outside !== undefined) throw new ShapeError(`${name}: row ${outside} does not lie in ${rows} rows`);
  if (new Set(at).size < at.length) throw new ShapeError(`${name}: a row is named twice in ${showShape(at)}`);
  const start = at[0] ?? 0;
  if (at.every((row, i) => row === start + i))
    return { range: { start, end: start + at.length }, count: at.length };
  return { indices: Uint32Array.from(at), count: at.length };
}

/** Throws ShapeError unless the range lies in 0..size. */
export function checkRange(name: string, what: string, { start, end }: Range, size: number): Range {
  if (!(Number.isInteger(start) && Number.isInteger(end) && 0 <= start && start <= end && end <= size)) {
    throw new ShapeError(`${name}: ${what} ${start}..${end} do not lie in 0..${size}`);
  }
  return { start, end };
}
