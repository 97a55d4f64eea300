import type { DType } from "../../../tensor/dtype.ts";
import type { Shape } from "../../../tensor/shape.ts";
import type { PackedSource } from "./packed-source.ts";

/** Most bytes that a tensor's stream hands over at once, unless told otherwise. */
export const DEFAULT_CHUNK_BYTES = 8 * 2 ** 20;

/** One tensor of a file: what it is, and its bytes on demand. */
export interface TensorEntry {
  readonly name: string;
  readonly shape: Shape;
  /** The file's own word for the element type: `BF16`, `I64`, `Q4_1`… */
  readonly stored: string;
  /** Bytes in the file. */
  readonly storedBytes: number;
  /** What {@link stream} yields. */
  readonly dtype: DType;
  /** Bytes of all that {@link stream} yields: elements × size of `dtype`. */
  readonly byteLength: number;
  /** Why {@link stream} cannot yield anything, for a tensor that can only be listed; `dtype` means nothing then. */
  readonly problem?: string;
  /**
   * The elements in row-major order as little-endian bytes of `dtype`, in chunks of at most `chunkBytes` (or the smallest
   * piece that the format allows). Every chunk but the last is a multiple of four bytes long, the last holds whole
   * elements, and each starts four-byte aligned and is the caller's to keep. An empty tensor yields nothing. Throws
   * CheckpointError when the file cannot be read or a value cannot be converted.
   */
  stream(chunkBytes?: number): AsyncGenerator<Uint8Array<ArrayBuffer>, void, undefined>;
  /** Says that the tensor is going to be read, after those of earlier calls; see `ByteSource`. */
  expect?(): void;
  /** The matrix in the few bits an element that it is stored in, where it is; {@link stream} unpacks it. */
  readonly packed?: PackedSource;
  /** The bytes as they lie in the file, in chunks of at most `chunkBytes`. */
  raw?(chunkBytes: number): AsyncGenerator<Uint8Array<ArrayBuffer>, void, undefined>;
}

/** The same tensor under another name. */
export function renamed(entry: TensorEntry, name: string): TensorEntry {
  const { shape, stored, storedBytes, dtype, byteLength, problem, packed } = entry;
  return {
    ...{ name, shape, stored, storedBytes, dtype, byteLength },
    ...(problem && { problem }),
    ...(packed && { packed }),
    stream: (bytes) => entry.stream(bytes),
    expect: () => entry.expect?.(),
  };
}

/** The same bytes at an address that typed arrays of any element size accept; a copy only where it has to be. */
export function aligned(bytes: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  return bytes.byteOffset % 8 === 0 ? bytes : bytes.slice();
}

/** The last chunk of an odd number of 16-bit elements ends in the middle of the four bytes that a write needs. */
export function padded(chunk: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  if (chunk.length % 4 === 0) return chunk;
  const whole = new Uint8Array(Math.ceil(chunk.length / 4) * 4);
  whole.set(chunk);
  return whole;
}

/** All bytes of a tensor that is known to be small. */
export async function readTensor(entry: TensorEntry): Promise<Uint8Array<ArrayBuffer>> {
  const out = new Uint8Array(entry.byteLength);
  let at = 0;
  for await (const chunk of entry.stream()) {
    out.set(chunk, at);
    at += chunk.length;
  }
  return out;
}
