/** Rows that Page Up and Page Down go by. */
const PAGE = 10;

export interface GridSpot {
  readonly row: number;
  readonly column: number;
}

/** Where a key leads in a grid; undefined for keys that lead nowhere. At the edge one stays. */
export function spotAfter(
  key: string,
  ends: boolean,
  { row, column }: GridSpot,
  size: { readonly rows: number; readonly columns: number },
): GridSpot | undefined {
  const [lastRow, lastColumn] = [size.rows - 1, size.columns - 1];
  const spots: Record<string, GridSpot> = {
    ArrowLeft: { row, column: column - 1 },
    ArrowRight: { row, column: column + 1 },
    ArrowUp: { row: row - 1, column },
    ArrowDown: { row: row + 1, column },
    PageUp: { row: row - PAGE, column },
    PageDown: { row: row + PAGE, column },
    Home: { row: ends ? 0 : row, column: 0 },
    End: { row: ends ? lastRow : row, column: lastColumn },
  };
  const spot = spots[key];
  if (!spot) return undefined;
  const within = (value: number, last: number) => Math.max(0, Math.min(last, value));
  return { row: within(spot.row, lastRow), column: within(spot.column, lastColumn) };
}
