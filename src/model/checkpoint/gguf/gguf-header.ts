import { CheckpointError } from "../../../errors.ts";
import { refuseLfsPointer } from "../../../platform/lfs-pointer.ts";
import type { ByteSource } from "../../../platform/platform.ts";
import { GGML_TYPES, type GgmlType } from "./gguf-types.ts";

/** Far above what real files have (a vocabulary of 256k tokens with its merges takes 12 MB). */
const MAX_HEADER_BYTES = 100_000_000;
/** Read at first; enough for most headers. */
const FIRST_READ_BYTES = 4 * 2 ** 20;
const MAX_DIMENSIONS = 4;

/** 64-bit integers are bigints only where a number would not be exact; arrays of booleans are bytes. */
export type GgufValue = number | bigint | boolean | string | GgufArray;
/** An array of a GGUF file's metadata. */
export type GgufArray = readonly string[] | NumberArray;
type NumberArray = InstanceType<(typeof NUMBER_TYPES)[number]["array"]>;

export interface GgufTensor {
  readonly name: string;
  readonly type: GgmlType;
  /** Outermost first: the reverse of the order in the file. */
  readonly shape: readonly number[];
  /** Where its bytes are, counted from the start of the file. */
  readonly begin: number;
  readonly end: number;
}

export interface GgufHeader {
  readonly metadata: ReadonlyMap<string, GgufValue>;
  readonly tensors: readonly GgufTensor[];
}

/** In the order of the format's type numbers; 8 (string) and 9 (array) stand apart. */
const NUMBER_TYPES = [
  { id: 0, array: Uint8Array, read: (v: DataView, at: number) => v.getUint8(at) },
  { id: 1, array: Int8Array, read: (v: DataView, at: number) => v.getInt8(at) },
  { id: 2, array: Uint16Array, read: (v: DataView, at: number) => v.getUint16(at, true) },
  { id: 3, array: Int16Array, read: (v: DataView, at: number) => v.getInt16(at, true) },
  { id: 4, array: Uint32Array, read: (v: DataView, at: number) => v.getUint32(at, true) },
  { id: 5, array: Int32Array, read: (v: DataView, at: number) => v.getInt32(at, true) },
  { id: 6, array: Float32Array, read: (v: DataView, at: number) => v.getFloat32(at, true) },
  { id: 7, array: Uint8Array, read: (v: DataView, at: number) => v.getUint8(at) !== 0 },
  { id: 10, array: BigUint64Array, read: (v: DataView, at: number) => exact(v.getBigUint64(at, true)) },
  { id: 11, array: BigInt64Array, read: (v: DataView, at: number) => exact(v.getBigInt64(at, true)) },
  { id: 12, array: Float64Array, read: (v: DataView, at: number) => v.getFloat64(at, true) },
] as const;
const U32 = 4;
const STRING = 8;
const ARRAY = 9;
const U64 = 10;

function exact(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

/**
 * Reads and checks the header of a GGUF file, versions 2 and 3, little-endian
 * (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md). Nothing is allocated for a count that the file has no
 * room for, and tensors have to lie inside the file without overlaps. Throws CheckpointError.
 */
export async function readGgufHeader(source: ByteSource): Promise<GgufHeader> {
  const limit = Math.min(source.size, MAX_HEADER_BYTES);
  for (let length = FIRST_READ_BYTES; ; length *= 4) {
    const bytes = await source.read(0, Math.min(limit, length));
    try {
      return parseHeader(new Cursor(bytes, source));
    } catch (error) {
      if (!(error instanceof OutOfBytes)) {
        await refuseLfsPointer(source);
        throw error;
      }
      if (bytes.length === limit) {
        throw new CheckpointError(`${source.name}: GGUF header of more than ${MAX_HEADER_BYTES} bytes`);
      }
    }
  }
}

function parseHeader(cursor: Cursor): GgufHeader {
  const magic = cursor.number(U32);
  if (magic !== 0x46554747) throw cursor.error("not a GGUF file: it does not begin with GGUF");
  const version = cursor.number(U32);
  if (version !== 2 && version !== 3) {
    throw cursor.error(`GGUF version ${version}; supported are 2 and 3, little-endian`);
  }
  const tensorCount = cursor.count();
  const valueCount = cursor.count();

  const metadata = new Map<string, GgufValue>();
  for (let i = 0; i < valueCount; i++) {
    const key = cursor.string();
    if (metadata.has(key)) throw cursor.error(`duplicate key ${JSON.stringify(key)}`);
    metadata.set(key, cursor.value(cursor.number(U32)));
  }
  const alignment = metadata.get("general.alignment") ?? 32;
  if (typeof alignment !== "number" || alignment < 1 || !Number.isInteger(Math.log2(alignment))) {
    throw cursor.error(`general.alignment is ${String(alignment)}, not a power of two`);
  }

  const relative = new Map<string, GgufTensor>();
  for (let i = 0; i < tensorCount; i++) {
    const tensor = readTensorInfo(cursor);
    if (relative.has(tensor.name)) throw cursor.error(`duplicate tensor ${JSON.stringify(tensor.name)}`);
    if (tensor.begin % alignment) {
      throw cursor.error(`${tensor.name} begins at ${tensor.begin}, not a multiple of ${alignment}`);
    }
    relative.set(tensor.name, tensor);
  }
  const dataStart = Math.ceil(cursor.at / alignment) * alignment;
  const tensors = [...relative.values()].map((tensor) => ({
    ...tensor,
    begin: dataStart + tensor.begin,
    end: dataStart + tensor.end,
  }));
  checkRanges(tensors, cursor);
  return { metadata, tensors };
}

/** `begin` and `end` are still relative to the start of the data. */
function readTensorInfo(cursor: Cursor): GgufTensor {
  const name = cursor.string();
  const dimensions = cursor.number(U32);
  if (dimensions > MAX_DIMENSIONS) throw cursor.error(`${name} has ${dimensions} dimensions`);
  const shape = Array.from({ length: dimensions }, () => cursor.count()).reverse();
  const id = cursor.number(U32);
  const begin = cursor.count();
  const type = GGML_TYPES.get(id);
  if (!type) throw cursor.error(`${name} has the unknown type ${id}`);
  const elements = shape.reduce((product, n) => product * n, 1);
  const row = shape.at(-1) ?? 1;
  const end = begin + (elements / type.blockElements) * type.blockBytes;
  if (row % type.blockElements || !Number.isSafeInteger(elements) || !Number.isSafeInteger(end)) {
    throw cursor.error(`${name} is ${type.name} of the impossible shape [${shape.join(", ")}]`);
  }
  return { name, type, shape, begin, end };
}

function checkRanges(tensors: readonly GgufTensor[], cursor: Cursor): void {
  const inOrder = [...tensors].sort((a, b) => a.begin - b.begin || a.end - b.end);
  inOrder.forEach(({ name, begin, end }, i) => {
    if (end > cursor.size)
      throw cursor.error(`${name} at [${begin}, ${end}) in a file of ${cursor.size} bytes`);
    const before = inOrder[i - 1];
    if (before && begin < before.end) throw cursor.error(`${name} overlaps ${before.name}`);
  });
}

/** Thrown when the header goes on behind the bytes that were read. */
class OutOfBytes extends Error {}

class Cursor {
  at = 0;
  readonly size: number;
  readonly #bytes: Uint8Array<ArrayBuffer>;
  readonly #view: DataView;
  readonly #file: string;
  readonly #utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

  constructor(bytes: Uint8Array<ArrayBuffer>, { name, size }: ByteSource) {
    this.size = size;
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    this.#file = name;
  }

  error(what: string): CheckpointError {
    return new CheckpointError(`${this.#file}: ${what}`);
  }

  /** A scalar of the number type `id`. */
  number(id: number): number {
    return this.value(id) as number;
  }

  /** An unsigned 64-bit integer that a number holds exactly. */
  count(): number {
    const value = this.value(U64);
    if (typeof value !== "number") throw this.error(`${String(value)} at byte ${this.at - 8} is too large`);
    return value;
  }

  string(): string {
    const start = this.#take(this.count());
    try {
      return this.#utf8.decode(this.#bytes.subarray(start, this.at));
    } catch {
      throw this.error(`the string at byte ${start} is not UTF-8`);
    }
  }

  value(id: number): GgufValue {
    if (id === STRING) return this.string();
    if (id === ARRAY) return this.#array(this.number(U32), this.count());
    const type = this.#numberType(id);
    return type.read(this.#view, this.#take(type.array.BYTES_PER_ELEMENT));
  }

  #array(id: number, count: number): GgufArray {
    if (id === STRING) {
      const strings: string[] = [];
      for (let i = 0; i < count; i++) strings.push(this.string());
      return strings;
    }
    const type = this.#numberType(id);
    const start = this.#take(count * type.array.BYTES_PER_ELEMENT);
    return new type.array(this.#bytes.slice(start, this.at).buffer);
  }

  #numberType(id: number) {
    const type = NUMBER_TYPES.find((t) => t.id === id);
    if (!type) throw this.error(`unknown value type ${id} at byte ${this.at}`);
    return type;
  }

  /** Steps over `length` bytes and gives where they start. */
  #take(length: number): number {
    const start = this.at;
    const end = start + length;
    if (end > this.size) throw this.error(`${length} bytes expected at byte ${start} of ${this.size}`);
    if (end > this.#bytes.length) throw new OutOfBytes();
    this.at = end;
    return start;
  }
}
