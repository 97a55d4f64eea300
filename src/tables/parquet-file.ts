import type {
  AsyncBuffer,
  ColumnMetaData,
  Compressors,
  DecodedArray,
  FileMetaData,
  RowGroup,
  SchemaTree,
} from "hyparquet";
import { FileError } from "../errors.ts";
import { nearestHint } from "../nearest.ts";
import type { ByteSource } from "../platform/platform.ts";
import { checkPages, type Levels } from "./parquet-pages.ts";
import { showType } from "./parquet-type.ts";

/** A column of a file, with its type in the words of Arrow: `string`, `struct<bytes: binary, path: string>`. */
export interface ParquetField {
  readonly name: string;
  readonly type: string;
}

const CODECS = ["UNCOMPRESSED", "SNAPPY", "GZIP", "ZSTD", "BROTLI", "LZ4_RAW", "LZ4"];
/** At the end of a file: the length of the footer, then the magic bytes. */
const TAIL = 8;

/**
 * A Parquet file. Opening it reads the footer; columns are read a row group at a time, so that memory is that of the columns of
 * one group. Everything that is wrong with a file is a FileError with its name.
 */
export class ParquetFile {
  readonly name: string;
  readonly fields: readonly ParquetField[];
  /** The file's key-value metadata. */
  readonly metadata: ReadonlyMap<string, string>;
  /** How many rows each row group has. */
  readonly groups: readonly number[];
  readonly #source: ByteSource;
  readonly #footer: FileMetaData;
  readonly #buffer: AsyncBuffer;
  readonly #compressors: Compressors;
  /** By the path of the leaf. */
  readonly #levels: ReadonlyMap<string, Levels>;

  private constructor(
    source: ByteSource,
    buffer: AsyncBuffer,
    footer: FileMetaData,
    fields: readonly ParquetField[],
    compressors: Compressors,
    levels: ReadonlyMap<string, Levels>,
  ) {
    this.name = source.name;
    this.fields = fields;
    this.metadata = new Map((footer.key_value_metadata ?? []).map(({ key, value }) => [key, value ?? ""]));
    this.groups = footer.row_groups.map(({ num_rows }) => Number(num_rows));
    this.#source = source;
    this.#footer = footer;
    this.#buffer = buffer;
    this.#compressors = compressors;
    this.#levels = levels;
  }

  /** Reads the footer. Throws FileError for what is no Parquet file, is damaged, or compressed in a way that is not read here. */
  static async open(source: ByteSource): Promise<ParquetFile> {
    const { parquetMetadataAsync, parquetSchema } = await import("hyparquet");
    await checkMagic(source);
    const buffer = bufferOf(source);
    return await readable(`${source.name}: its footer`, async () => {
      const footer = await parquetMetadataAsync(buffer, { geoparquet: false });
      checkFooter(source, footer);
      const tree = parquetSchema(footer);
      const fields = tree.children.map((child) => ({ name: child.element.name, type: showType(child) }));
      const compressors = await compressorsFor(footer);
      return new ParquetFile(source, buffer, footer, fields, compressors, await levelsOf(footer, tree));
    });
  }

  /** How many rows the file has. */
  get rows(): number {
    return this.groups.reduce((sum, rows) => sum + rows, 0);
  }

  /**
   * Columns of a row group, each an array of as many values as the group has rows: strings, numbers, bigints of int64, bytes
   * (Uint8Array) of binary, objects of structs, arrays of lists; null or undefined where there is no value.
   *
   * @throws FileError for columns that the file lacks, and for damaged ones
   */
  async read(group: number, columns = this.fields.map(({ name }) => name)): Promise<DecodedArray[]> {
    const { parquetScan } = await import("hyparquet");
    const names = this.fields.map(({ name }) => name);
    const lacking = columns.find((name) => !names.includes(name));
    if (lacking !== undefined) {
      throw new FileError(
        `${this.name}: expected a column ${lacking}, found ${names.join(", ")}${nearestHint(lacking, names)}`,
      );
    }
    const of = this.#footer.row_groups[group];
    if (of === undefined) {
      throw new FileError(`${this.name}: there is no row group ${group}, only ${this.groups.length} of them`);
    }
    // Planning goes over all groups that it is given.
    const metadata = { ...this.#footer, row_groups: [of], num_rows: of.num_rows };
    const scan = await readable(`${this.name}: row group ${group}`, () =>
      parquetScan({
        file: this.#checked(of),
        metadata,
        columns: [...columns],
        compressors: this.#compressors,
        parsers: { stringFromBytes: decodeString },
        utf8: false,
        geoparquet: false,
        useOffsetIndex: false,
      }),
    );
    const rows = this.groups[group]!;
    const read: DecodedArray[] = [];
    for (const column of columns) {
      const what = `${this.name}: column ${column} of row group ${group}`;
      const values = await readable(what, () => scan.readColumn({ column, rowStart: 0, rowEnd: rows }));
      if (values.length !== rows) {
        throw new FileError(`${what}: expected ${rows} values, found ${values.length}; the file is damaged`);
      }
      read.push(values);
    }
    return read;
  }

  /** The file, whose pages are checked as chunks of a row group are read. */
  #checked(group: RowGroup): AsyncBuffer {
    const chunks = group.columns.map(({ meta_data: meta }) => ({ meta: meta!, ...extentOf(meta!) }));
    return {
      byteLength: this.#buffer.byteLength,
      slice: async (from, to = this.#buffer.byteLength) => {
        const buffer = await this.#buffer.slice(from, to);
        for (const { meta, start, end } of chunks) {
          if (start < from || end > to) continue;
          const bytes = new Uint8Array(buffer, start - from, end - start);
          const levels = this.#levels.get(pathOf(meta))!;
          await checkPages(bytes, meta, levels, Number(group.num_rows), this.#compressors);
        }
        return buffer;
      },
    };
  }

  /** Closes the source that the file was opened from. */
  close(): Promise<void> {
    return this.#source.close();
  }
}

/** Throws FileError for what does not begin and end as Parquet files do. */
async function checkMagic(source: ByteSource): Promise<void> {
  const { name, size } = source;
  const text = async (offset: number) => new TextDecoder().decode(await source.read(offset, 4));
  const found = size < TAIL + 4 ? [] : [await text(0), await text(size - 4)];
  if (found.includes("PARE")) throw new FileError(`${name}: encrypted Parquet is not supported`);
  if (found[0] === "PAR1" && found[1] === "PAR1") return;
  const what = found[0] === "PAR1" ? "one that is cut off" : "something else";
  throw new FileError(`${name}: expected a Parquet file, which begins and ends with PAR1; found ${what}`);
}

function checkFooter({ name, size }: ByteSource, { row_groups }: FileMetaData): void {
  for (const [i, { columns, num_rows }] of row_groups.entries()) {
    const where = `${name}: row group ${i}`;
    if (num_rows < 0n || num_rows > 2n ** 31n) {
      throw new FileError(`${where}: expected a number of rows, found ${num_rows}; the file is damaged`);
    }
    for (const { meta_data: meta, file_path: path } of columns) {
      if (path) throw new FileError(`${where}: columns in other files (${path}) are not supported`);
      if (!meta) throw new FileError(`${where}: a column without metadata (encrypted?) is not supported`);
      const column = `${where}: column ${pathOf(meta)}`;
      if (!CODECS.includes(meta.codec)) {
        throw new FileError(
          `${column}: expected compression by one of ${CODECS.join(", ")}, found ${meta.codec ?? "another"}`,
        );
      }
      const { start, end } = extentOf(meta);
      if (!(start >= 0 && start <= end && end <= size)) {
        throw new FileError(`${column}: lies outside the file, which is damaged or cut off`);
      }
    }
  }
}

/** From where to where the pages of a chunk lie. */
function extentOf(meta: ColumnMetaData): { start: number; end: number } {
  const start = Number(meta.dictionary_page_offset || meta.data_page_offset);
  return { start, end: start + Number(meta.total_compressed_size) };
}

function pathOf({ path_in_schema: path }: ColumnMetaData): string {
  return path.join(".");
}

/** The levels of each leaf that the footer has a chunk of. Throws where the schema lacks it. */
async function levelsOf({ row_groups }: FileMetaData, tree: SchemaTree): Promise<Map<string, Levels>> {
  const { getMaxDefinitionLevel, getMaxRepetitionLevel, getTreePath } = await import(
    "hyparquet/src/schema.js"
  );
  const leaves = new Map<string, Levels>();
  for (const { columns } of row_groups) {
    for (const { meta_data: meta } of columns) {
      if (leaves.has(pathOf(meta!))) continue;
      const path = getTreePath(tree, meta!.path_in_schema);
      const [repetition, definition] = [getMaxRepetitionLevel(path), getMaxDefinitionLevel(path)];
      leaves.set(pathOf(meta!), { repetition, definition });
    }
  }
  return leaves;
}

/** What decompresses the pages of a file; snappy comes with the reader. */
async function compressorsFor({ row_groups }: FileMetaData): Promise<Compressors> {
  const used = new Set(
    row_groups.flatMap(({ columns }) => columns.map(({ meta_data: meta }) => meta!.codec)),
  );
  used.delete("UNCOMPRESSED");
  used.delete("SNAPPY");
  if (used.size === 0) return {};
  const { SNAPPY: _, ...others } = (await import("hyparquet-compressors")).compressors;
  return others;
}

function bufferOf(source: ByteSource): AsyncBuffer {
  return {
    byteLength: source.size,
    async slice(start, end = source.size) {
      const { buffer, byteOffset, byteLength } = await source.read(start, end - start);
      return byteLength === buffer.byteLength ? buffer : buffer.slice(byteOffset, byteOffset + byteLength);
    },
  };
}

const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function decodeString(bytes: Uint8Array | null | undefined): string | undefined {
  return bytes ? UTF8.decode(bytes) : undefined;
}

/** What `read` gives; the reader's complaints become errors of the file. */
async function readable<T>(what: string, read: () => T | Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (cause) {
    if (cause instanceof FileError) throw cause;
    const reason = (cause as Error).message;
    throw new FileError(`${what}: damaged, or of a kind that is not read here: ${reason}`, { cause });
  }
}
