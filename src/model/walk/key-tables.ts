import type { Device } from "../../tensor/device.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { KeyRange } from "./masks.ts";
import type { RowMap } from "./row-map.ts";

/** Where the keys of each sequence lie: those of a prefix that all share, and its own. */
export interface KeyRowMaps {
  readonly own: RowMap;
  readonly prefix?: RowMap | undefined;
}

/** Which positions the query at a position of a sequence attends to. */
export type Visible = (sequence: number, position: number) => KeyRange;

/** u32 [rows, 4]: the rows of the prefix and the rows of the own keys that each query attends to, as start and end. */
export function segmentTable(
  device: Device,
  rows: RowMap,
  { own, prefix }: KeyRowMaps,
  visible: Visible,
): Tensor {
  const values = new Uint32Array(rows.length * 4);
  for (const { row, sequence, position } of rows.entries()) {
    const range = visible(sequence, position);
    values.set(rowsWithin(prefix, sequence, range), row * 4);
    values.set(rowsWithin(own, sequence, range), row * 4 + 2);
  }
  return device.tensor(values, { shape: [rows.length, 4], dtype: "u32" });
}

function rowsWithin(
  map: RowMap | undefined,
  sequence: number,
  visible: KeyRange,
): [start: number, end: number] {
  const [span] = map?.of(sequence) ?? [];
  if (!span) return [0, 0];
  const start = Math.max(visible.start, span.position);
  const end = Math.min(visible.end, span.position + span.count);
  if (end <= start) return [0, 0];
  return [span.row + start - span.position, span.row + end - span.position];
}

/** i32 [rows, 2]: what makes the row of a key in the prefix, and among the own keys, its distance from each query. */
export function shiftTable(device: Device, rows: RowMap, { own, prefix }: KeyRowMaps): Tensor {
  const values = Int32Array.from(
    [...rows.entries()].flatMap(({ sequence, position }) =>
      [prefix, own].map((map) => {
        const [span] = map?.of(sequence) ?? [];
        return span ? span.position - span.row - position : 0;
      }),
    ),
  );
  return device.tensor(values, { shape: [rows.length, 2], dtype: "i32" });
}
