import type { DecodedArray } from "hyparquet";
import { CheckpointError, FileError } from "../errors.ts";
import { SafetensorsFile } from "../model/checkpoint/safetensors/safetensors.ts";
import { writeSafetensors } from "../model/checkpoint/safetensors/safetensors-writer.ts";
import { parseSite, type SiteName } from "../model/walk/sites.ts";
import type { ByteSource } from "../platform/platform.ts";
import { ParquetFile } from "../tables/parquet-file.ts";
import { encodeParquet, type ParquetColumn } from "../tables/parquet-writer.ts";
import { f16Bits, f16Value } from "../tensor/dtype.ts";
import { showShape } from "../tensor/shape.ts";
import type { FileKind, StoreDType, StoredSite } from "./manifest.ts";

/** Rows of a site: a vector for each position of some prompts. */
export interface SiteRows {
  /** Which prompt each row is of, counted from the store's first. */
  readonly prompts: Int32Array;
  /** Its position there; at sites of images its row of the image. */
  readonly positions: Int32Array;
  /** The token's id; -1 at sites of images. */
  readonly tokens: Int32Array;
  /** Row by row, [rows, width]. */
  readonly vectors: Float32Array;
}

/** Rows of one prompt, and how its tokens are spelt. */
export interface PromptRows extends SiteRows {
  readonly spelt: readonly string[];
}

export interface FileSetting {
  readonly kind: FileKind;
  readonly dtype: StoreDType;
  readonly model: string;
}

/** Bytes that are written at once. */
const BLOCK_BYTES = 2 ** 21;
/** Numbers in one group of a Parquet file, which a writer and a reader hold at once; and rows at most. */
const GROUP_NUMBERS = 2 ** 20;
const GROUP_ROWS = 8192;
const INDEX = ["prompt", "position", "token"] as const;

/** The bytes of a site's file in a shard, as they come; `parts` are gone through once or twice. */
export function encodeShardFile(
  { site, width }: StoredSite,
  parts: readonly PromptRows[],
  { kind, dtype, model }: FileSetting,
): AsyncGenerator<Uint8Array> {
  const rows = parts.reduce((sum, { prompts }) => sum + prompts.length, 0);
  const { layer } = parseSite(site);
  const metadata = { format: "xpatch.activations.1", model, site, layer: String(layer ?? "") };
  if (kind === "parquet")
    return encodeParquet(COLUMNS, groupsOf(parts, site, width), { metadata, codec: "UNCOMPRESSED" });
  const index = (key: "prompts" | "positions" | "tokens") => () =>
    gathered(parts.map((part) => bytesOf(part[key])));
  const stored = dtype === "f32" ? "F32" : "F16";
  const data = () => gathered(vectorBytes(parts, dtype, site));
  return writeSafetensors(
    [
      { name: "vectors", stored, shape: [rows, width], data },
      { name: "prompt", stored: "I32", shape: [rows], data: index("prompts") },
      { name: "position", stored: "I32", shape: [rows], data: index("positions") },
      { name: "token", stored: "I32", shape: [rows], data: index("tokens") },
    ],
    metadata,
  );
}

function* vectorBytes(
  parts: readonly PromptRows[],
  dtype: StoreDType,
  site: SiteName,
): Generator<Uint8Array> {
  for (const { vectors } of parts) yield bytesOf(dtype === "f32" ? vectors : halves(vectors, site));
}

/** Many short pieces as few long ones: each is a call of the system. What it yields is overwritten when the next one is asked for. */
async function* gathered(pieces: Iterable<Uint8Array>): AsyncGenerator<Uint8Array, void> {
  const block = new Uint8Array(BLOCK_BYTES);
  let filled = 0;
  for (const piece of pieces) {
    if (filled + piece.length > block.length) {
      if (filled > 0) yield block.subarray(0, filled);
      filled = 0;
    }
    if (piece.length > block.length) yield piece;
    else {
      block.set(piece, filled);
      filled += piece.length;
    }
  }
  if (filled > 0) yield block.subarray(0, filled);
}

const COLUMNS: readonly ParquetColumn[] = [
  { name: "prompt", type: "int32" },
  { name: "position", type: "int32" },
  { name: "token", type: "int32" },
  { name: "text", type: "string" },
  { name: "site", type: "string" },
  { name: "layer", type: "int32", nullable: true },
  { name: "vector", type: { list: "float32" }, encoding: "PLAIN", statistics: false },
];

function* groupsOf(
  parts: readonly PromptRows[],
  site: SiteName,
  width: number,
): Generator<readonly DecodedArray[]> {
  const layer = parseSite(site).layer ?? null;
  const most = Math.max(1, Math.min(GROUP_ROWS, Math.floor(GROUP_NUMBERS / width)));
  const columns: unknown[][] = COLUMNS.map(() => []);
  const take = () => columns.map((column) => column.splice(0)) as DecodedArray[];
  for (const { prompts, positions, tokens, spelt, vectors } of parts) {
    for (let row = 0; row < prompts.length; row++) {
      const vector = Array.from(vectors.subarray(row * width, (row + 1) * width));
      const values = [prompts[row], positions[row], tokens[row], spelt[row], site, layer, vector];
      for (const [i, value] of values.entries()) columns[i]!.push(value);
      if (columns[0]!.length === most) yield take();
    }
  }
  if (columns[0]!.length > 0) yield take();
}

function bytesOf({ buffer, byteOffset, byteLength }: ArrayBufferView): Uint8Array {
  return new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength);
}

/** Numbers as f16, to the nearest. Throws CheckpointError for those beyond its range. */
function halves(values: Float32Array, site: SiteName): Uint16Array {
  const out = new Uint16Array(values.length);
  const floats = new Uint32Array(values.buffer, values.byteOffset, values.length);
  for (let i = 0; i < out.length; i++) {
    const bits = floats[i]!;
    const magnitude = bits & 0x7fffffff;
    // As f16Bits does, of those that are normal numbers in f16: nearly all.
    if (magnitude >= 0x38800000 && magnitude < 0x477ff000) {
      const rounded = magnitude + 0xfff + ((magnitude >>> 13) & 1);
      out[i] = ((bits >>> 16) & 0x8000) | ((rounded - 0x38000000) >>> 13);
      continue;
    }
    out[i] = f16Bits(values[i]!);
    if ((out[i]! & 0x7fff) === 0x7c00 && Number.isFinite(values[i])) {
      throw new CheckpointError(
        `${site} has ${values[i]}, which is beyond f16 (65504 at most); collect it as f32`,
      );
    }
  }
  return out;
}

/** What each f16 is, by its bits; made when one is read. */
let f16Values: Float32Array | undefined;

/**
 * The rows of a site's file, `batchRows` at a time at most. Throws FileError and CheckpointError for a file that is damaged, or of other
 * rows than the manifest says.
 */
export async function* readShardFile(
  source: ByteSource,
  { site, width }: StoredSite,
  expected: { readonly rows: number; readonly kind: FileKind; readonly dtype: StoreDType },
  batchRows: number,
): AsyncGenerator<SiteRows, void> {
  if (expected.kind === "parquet") yield* readParquet(source, { site, width }, expected.rows, batchRows);
  else yield* readSafetensors(source, { site, width }, expected, batchRows);
}

async function* readSafetensors(
  source: ByteSource,
  { width }: StoredSite,
  { rows, dtype }: { readonly rows: number; readonly dtype: StoreDType },
  batchRows: number,
): AsyncGenerator<SiteRows, void> {
  const file = await SafetensorsFile.open(source);
  const shapes: Record<string, readonly number[]> = { vectors: [rows, width] };
  for (const name of INDEX) shapes[name] = [rows];
  for (const [name, shape] of Object.entries(shapes)) {
    const entry = file.entry(name);
    const wanted = name === "vectors" ? dtype : "i32";
    if (entry.dtype === wanted && showShape(entry.shape) === showShape(shape)) continue;
    throw new FileError(
      `${source.name}: expected ${name} ${wanted} ${showShape(shape)}, as the store says, found ${entry.dtype} ${showShape(entry.shape)}`,
    );
  }
  // Whole rows, and pieces whose length in elements is a multiple of eight, as an entry hands them over.
  const step = Math.max(8, Math.floor(batchRows / 8) * 8);
  const bytes = dtype === "f32" ? 4 : 2;
  const streams = [
    ...INDEX.map((name) => file.entry(name).stream(4 * step)),
    file.entry("vectors").stream(step * width * bytes),
  ];
  for (let row = 0; row < rows; row += step) {
    const pieces = await Promise.all(
      streams.map(async (stream) => (await stream.next()).value as Uint8Array<ArrayBuffer>),
    );
    const [prompts, positions, tokens] = pieces.map(
      (piece) => new Int32Array(piece.buffer, piece.byteOffset, piece.length / 4),
    );
    yield { prompts: prompts!, positions: positions!, tokens: tokens!, vectors: widened(pieces[3]!, dtype) };
  }
}

function widened({ buffer, byteOffset, length }: Uint8Array<ArrayBuffer>, dtype: StoreDType): Float32Array {
  if (dtype === "f32") return new Float32Array(buffer, byteOffset, length / 4);
  f16Values ??= Float32Array.from({ length: 65536 }, (_, bits) => f16Value(bits));
  const bits = new Uint16Array(buffer, byteOffset, length / 2);
  const out = new Float32Array(bits.length);
  for (let i = 0; i < bits.length; i++) out[i] = f16Values[bits[i]!]!;
  return out;
}

async function* readParquet(
  source: ByteSource,
  { width }: StoredSite,
  rows: number,
  batchRows: number,
): AsyncGenerator<SiteRows, void> {
  const file = await ParquetFile.open(source);
  if (file.rows !== rows) {
    throw new FileError(`${source.name}: expected ${rows} rows, as the store says, found ${file.rows}`);
  }
  for (const [group, count] of file.groups.entries()) {
    const [prompts, positions, tokens, lists] = await file.read(group, [...INDEX, "vector"]);
    const whole = {
      ...{
        prompts: Int32Array.from(prompts!),
        positions: Int32Array.from(positions!),
        tokens: Int32Array.from(tokens!),
      },
      vectors: joined(lists!, width, source.name),
    };
    for (let start = 0; start < count; start += batchRows)
      yield sliced(whole, start, Math.min(count, start + batchRows), width);
  }
}

function joined(lists: DecodedArray, width: number, where: string): Float32Array {
  const out = new Float32Array(lists.length * width);
  for (let row = 0; row < lists.length; row++) {
    const list = lists[row] as ArrayLike<number> | undefined;
    if (list?.length !== width) {
      throw new FileError(
        `${where}: expected vectors of ${width} numbers, found one of ${list?.length ?? 0}`,
      );
    }
    out.set(list, row * width);
  }
  return out;
}

/** Rows `start` up to but not including `end`. */
export function sliced(rows: SiteRows, start: number, end: number, width: number): SiteRows {
  return {
    prompts: rows.prompts.subarray(start, end),
    positions: rows.positions.subarray(start, end),
    tokens: rows.tokens.subarray(start, end),
    vectors: rows.vectors.subarray(start * width, end * width),
  };
}
