import type { DecodedArray } from "hyparquet";
import { type ParquetType, schemaOf } from "./parquet-type.ts";

export interface ParquetColumn {
  readonly name: string;
  readonly type: ParquetType;
  /** Whether values may be null. Default: they may not. */
  readonly nullable?: boolean;
  /** `PLAIN` for values that hardly repeat: no dictionary is tried. Default: a dictionary where it is smaller. */
  readonly encoding?: "PLAIN";
  /** Whether least and greatest values are kept for each row group. Default: they are. */
  readonly statistics?: boolean;
}

export interface ParquetWriteOptions {
  /** The file's key-value metadata. */
  readonly metadata?: Readonly<Record<string, string>>;
  /** Of all pages. Default `SNAPPY`. */
  readonly codec?: "SNAPPY" | "UNCOMPRESSED";
}

/**
 * Writes a Parquet file, chunk by chunk as its row groups come: memory is that of one group. The same values give the same bytes.
 *
 * @param columns in the order of the file
 * @param groups row groups, each with an array of values a column, all of the same length; int64 values are bigints
 */
export async function* encodeParquet(
  columns: readonly ParquetColumn[],
  groups: Iterable<readonly DecodedArray[]> | AsyncIterable<readonly DecodedArray[]>,
  { metadata = {}, codec = "SNAPPY" }: ParquetWriteOptions = {},
): AsyncGenerator<Uint8Array<ArrayBuffer>, void> {
  // Loaded with the first file: most programs write none.
  const { ByteWriter, ParquetWriter } = await import("hyparquet-writer");
  const writer = new ByteWriter();
  const file = new ParquetWriter({
    writer,
    schema: [
      { name: "schema", num_children: columns.length },
      ...columns.flatMap(({ name, type, nullable = false }) => schemaOf(name, type, nullable)),
    ],
    codec,
    kvMetadata: Object.entries(metadata).map(([key, value]) => ({ key, value })),
    createdBy: "xpatch",
  });
  const taken = (): Uint8Array<ArrayBuffer> => {
    const bytes = new Uint8Array(writer.getBuffer());
    writer.index = 0; // `offset`, from the file's beginning, goes on
    return bytes;
  };
  for await (const group of groups) {
    const rows = group[0]?.length ?? 0;
    if (rows === 0) continue;
    const columnData = columns.map(({ name, encoding, statistics }, i) => ({
      name,
      data: group[i]!,
      ...(encoding && { encoding }),
      ...(statistics !== undefined && { statistics }),
    }));
    await file.write({ columnData, rowGroupSize: rows });
    yield taken();
  }
  await file.finish();
  yield taken();
}
