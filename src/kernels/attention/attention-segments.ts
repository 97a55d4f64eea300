/**
 * Segment tables for attention over own keys only, u32 [rows, 4] as (prefixStart, prefixEnd, ownStart, ownEnd), for
 * sequences of the given lengths that lie one after the other without padding; the keys are the rows themselves.
 */

/** Each row attends to the rows of its sequence up to itself, or with a `window` to the last `window` of these. */
export function causalSegments(
  lengths: readonly number[],
  { window = Number.POSITIVE_INFINITY }: { window?: number } = {},
): Uint32Array<ArrayBuffer> {
  return ownSegments(lengths, (start, row) => [Math.max(start, row + 1 - window), row + 1]);
}

/** Each row attends to all rows of its sequence. */
export function fullSegments(lengths: readonly number[]): Uint32Array<ArrayBuffer> {
  return ownSegments(lengths, (start, _row, end) => [start, end]);
}

function ownSegments(
  lengths: readonly number[],
  reach: (start: number, row: number, end: number) => [number, number],
): Uint32Array<ArrayBuffer> {
  const table = new Uint32Array(4 * lengths.reduce((sum, n) => sum + n, 0));
  let start = 0;
  for (const length of lengths) {
    const end = start + length;
    for (let row = start; row < end; row++) table.set(reach(start, row, end), row * 4 + 2);
    start = end;
  }
  return table;
}
