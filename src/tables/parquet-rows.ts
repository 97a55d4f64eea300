import type { ParquetFile } from "./parquet-file.ts";
import type { TableRow } from "./text-rows.ts";

/** The rows of some columns, a row group in memory at a time. Throws FileError for columns that the file lacks. */
export async function* parquetRows(
  file: ParquetFile,
  columns: readonly string[],
): AsyncGenerator<TableRow, void> {
  for (const [group, rows] of file.groups.entries()) {
    const values = await file.read(group, [...columns]);
    for (let row = 0; row < rows; row++) {
      yield Object.fromEntries(columns.map((name, c) => [name, values[c]![row]]));
    }
  }
}
