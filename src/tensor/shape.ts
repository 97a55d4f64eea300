import { ShapeError } from "../errors.ts";

/** Sizes of the dimensions, outermost first. A scalar has none. */
export type Shape = readonly number[];

/** Most dimensions that a strided kernel can address. */
export const MAX_RANK = 6;

export function sizeOf(shape: Shape): number {
  return shape.reduce((product, n) => product * n, 1);
}

export function showShape(shape: Shape): string {
  return `[${shape.join(", ")}]`;
}

/** Row-major strides, in elements. */
export function contiguousStrides(shape: Shape): number[] {
  const strides = new Array<number>(shape.length);
  let step = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    strides[i] = step;
    step *= shape[i]!;
  }
  return strides;
}

/** True when elements follow each other in memory in row-major order; dimensions of size one have no say. */
export function isContiguous(shape: Shape, strides: readonly number[]): boolean {
  let step = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    if (shape[i] !== 1 && strides[i] !== step) return false;
    step *= shape[i]!;
  }
  return true;
}

export function sameShape(a: Shape, b: Shape): boolean {
  return a.length === b.length && a.every((n, i) => n === b[i]);
}

/** Throws ShapeError unless every dimension is a whole number >= 0 and there are at most {@link MAX_RANK}. */
export function checkShape(operation: string, shape: Shape): void {
  if (shape.length > MAX_RANK || !shape.every((n) => Number.isSafeInteger(n) && n >= 0)) {
    throw new ShapeError(
      `${operation}: expected at most ${MAX_RANK} dimensions of whole numbers >= 0, found ${showShape(shape)}`,
    );
  }
}

/** NumPy's rule: aligned at the end, sizes are equal or one of them is 1. Throws ShapeError. */
export function broadcastShapes(operation: string, ...shapes: Shape[]): number[] {
  const rank = Math.max(0, ...shapes.map((s) => s.length));
  const out = new Array<number>(rank).fill(1);
  for (const shape of shapes) {
    for (let i = 0; i < shape.length; i++) {
      const at = rank - shape.length + i;
      const n = shape[i]!;
      if (n === 1 || n === out[at]) continue;
      if (out[at] !== 1) {
        throw new ShapeError(`${operation}: shapes ${shapes.map(showShape).join(" and ")} do not broadcast`);
      }
      out[at] = n;
    }
  }
  return out;
}

/** Turns a possibly negative axis into 0..rank-1. Throws ShapeError. */
export function normalizeAxis(operation: string, axis: number, rank: number): number {
  const normal = axis < 0 ? axis + rank : axis;
  if (!Number.isInteger(axis) || normal < 0 || normal >= rank) {
    throw new ShapeError(
      `${operation}: axis ${axis} is out of range for a tensor of ${rank} dimension${rank === 1 ? "" : "s"}`,
    );
  }
  return normal;
}
