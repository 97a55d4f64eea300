import type { ColumnMetaData, Compressors, DataReader, PageHeader } from "hyparquet";

/** What a column's values are nested in: the greatest repetition and definition level of the schema. */
export interface Levels {
  readonly repetition: number;
  readonly definition: number;
}

/**
 * Throws Error where the pages of a column chunk do not hold together: their sizes, their numbers of values, and the lengths of their
 * runs, on which the reader relies (a damaged one may have it fill all memory, or loop for ever).
 *
 * @param bytes of the chunk
 * @param rows of the row group
 */
export async function checkPages(
  bytes: Uint8Array,
  meta: ColumnMetaData,
  levels: Levels,
  rows: number,
  compressors: Compressors,
): Promise<void> {
  const [{ parquetHeader }, { decompressPage }] = await Promise.all([
    import("hyparquet/src/column.js"),
    import("hyparquet/src/datapage.js"),
  ]);
  const most = Number(meta.num_values);
  const flat = levels.repetition === 0;
  if (flat ? most !== rows : most < rows) damaged(`${most} values for ${rows} rows`);
  const reader: DataReader = { view: new DataView(bytes.buffer, bytes.byteOffset, bytes.length), offset: 0 };
  let seen = 0;
  while (seen < most) {
    const header = parquetHeader(reader);
    const { compressed_page_size: size, uncompressed_page_size: whole } = header;
    if (!(size >= 0 && reader.offset + size <= bytes.length)) damaged(`a page of ${size} bytes`);
    if (!(whole >= 0 && whole <= Number(meta.total_uncompressed_size))) damaged(`a page of ${whole} bytes`);
    const page = bytes.subarray(reader.offset, reader.offset + size);
    reader.offset += size;
    const unpacked = (packed: Uint8Array, length: number) =>
      decompressPage(packed, length, meta.codec, compressors);
    if (header.type === "DICTIONARY_PAGE") {
      const count = header.dictionary_page_header?.num_values ?? -1;
      if (!(count >= 0 && count <= whole)) damaged(`a dictionary of ${count} values in ${whole} bytes`);
      continue;
    }
    const { num_values: count } =
      header.data_page_header ?? header.data_page_header_v2 ?? damaged("an unknown page");
    if (!(count >= 0 && seen + count <= most)) damaged(`a page of ${count} values`);
    seen += count;
    if (header.type === "DATA_PAGE") checkV1(header, page, meta, levels, unpacked);
    else checkV2(header, page, meta, levels, unpacked);
  }
}

type Unpack = (packed: Uint8Array, length: number) => Uint8Array;

/** Levels and values are compressed as one; levels are led by their length. */
function checkV1(
  { data_page_header: header, uncompressed_page_size: whole }: PageHeader,
  page: Uint8Array,
  { type }: ColumnMetaData,
  levels: Levels,
  unpacked: Unpack,
): void {
  const { num_values: count, encoding } = header!;
  const runs = hasRuns(encoding);
  if (levels.repetition + levels.definition === 0 && !runs) return;
  const bytes = unpacked(page, whole);
  let at = 0;
  for (const level of [levels.repetition, levels.definition]) {
    if (level === 0) continue;
    const length = lengthAt(bytes, at);
    checkRuns(bytes.subarray(at + 4), bitsOf(level), count);
    at += 4 + length;
  }
  if (runs) checkIndices(bytes.subarray(at), type === "BOOLEAN", count);
}

/** Levels stand before what is compressed, and their lengths in the header. */
function checkV2(
  { data_page_header_v2: header, uncompressed_page_size: whole }: PageHeader,
  page: Uint8Array,
  { type }: ColumnMetaData,
  levels: Levels,
  unpacked: Unpack,
): void {
  const {
    num_values: count,
    num_nulls: nulls,
    repetition_levels_byte_length: repetition,
    definition_levels_byte_length: definition,
    encoding,
    is_compressed: compressed,
  } = header!;
  const before = repetition + definition;
  if (!(repetition >= 0 && definition >= 0 && before <= Math.min(page.length, whole)))
    damaged("the lengths of levels");
  if (!(nulls >= 0 && nulls <= count)) damaged(`${nulls} nulls among ${count} values`);
  if (levels.repetition > 0) checkRuns(page.subarray(0, repetition), bitsOf(levels.repetition), count);
  if (levels.definition > 0) checkRuns(page.subarray(repetition, before), bitsOf(levels.definition), count);
  if (!hasRuns(encoding)) return;
  const packed = page.subarray(before);
  const values = compressed === false ? packed : unpacked(packed, whole - before);
  checkIndices(values, type === "BOOLEAN", count - nulls);
}

function hasRuns(encoding: string): boolean {
  return encoding === "RLE" || encoding.endsWith("_DICTIONARY");
}

/** Indices into the dictionary, led by their width in bits, or booleans, led by the length of their runs. */
function checkIndices(bytes: Uint8Array, booleans: boolean, count: number): void {
  if (count === 0) return;
  const width = booleans ? 1 : (bytes[0] ?? damaged("a page without values"));
  if (width > 32) damaged(`indices of ${width} bits`);
  checkRuns(bytes.subarray(booleans ? 4 : 1), width, count);
}

/**
 * The hybrid of runs and of bit-packed groups of eight. No run may go on beyond the last value, but for the rest of a group;
 * where bytes end early, the reader says so itself.
 */
function checkRuns(bytes: Uint8Array, bits: number, count: number): void {
  let at = 0;
  for (let seen = 0; seen < count && at < bytes.length; ) {
    let header = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = bytes[at++] ?? damaged("a run without a length");
      header += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) break;
      if (shift > 28) damaged("the length of a run");
    }
    const packed = header % 2 === 1;
    const length = packed ? Math.floor(header / 2) * 8 : header / 2;
    if (length > count - seen + (packed ? 7 : 0))
      damaged(`a run of ${length} values where ${count - seen} are left`);
    at += packed ? (length / 8) * bits : Math.ceil(bits / 8);
    seen += length;
  }
}

function lengthAt(bytes: Uint8Array, at: number): number {
  if (at + 4 > bytes.length) damaged("a page without levels");
  const length = new DataView(bytes.buffer, bytes.byteOffset).getUint32(at, true);
  if (at + 4 + length > bytes.length) damaged(`levels of ${length} bytes`);
  return length;
}

/** Bits that hold 0 to `most`. */
function bitsOf(most: number): number {
  return 32 - Math.clz32(most);
}

function damaged(found: string): never {
  throw new Error(`damaged pages: found ${found}`);
}
