import { Inflate, Z_SYNC_FLUSH } from "pako";

export interface Inflated {
  /** How many bytes there were; one more than asked for stands for any surplus. */
  readonly size: number;
  /** Whether the stream came to its end, with a checksum that is right. */
  readonly whole: boolean;
  /** Whether something in it makes no sense, or its checksum is wrong. */
  readonly damaged: boolean;
}

const CHUNK_SIZE = 2 ** 16;
const ENOUGH = Symbol("enough");

/**
 * Decompresses a zlib stream, in one or more parts, into `target`, and stops once that is full and more has come. What
 * follows the stream is not looked at, and neither is a checksum behind more data than asked for.
 */
export function inflateInto(target: Uint8Array, parts: readonly Uint8Array[]): Inflated {
  let size = 0;
  // Filled to the brim, a chunk of this size shows a surplus.
  const inflate = new Inflate({ windowBits: 15, chunkSize: Math.min(CHUNK_SIZE, target.length + 1) });
  inflate.onData = (chunk) => {
    target.set(chunk.subarray(0, target.length - size), size);
    size = Math.min(size + chunk.length, target.length + 1);
    if (size > target.length) throw ENOUGH;
  };
  inflate.onEnd = () => {};
  try {
    for (const part of parts) {
      if (!inflate.ended) inflate.push(part);
    }
    if (!inflate.ended) inflate.push(new Uint8Array(0), Z_SYNC_FLUSH);
  } catch (reason) {
    if (reason !== ENOUGH) throw reason;
  }
  return { size, whole: inflate.ended && inflate.err === 0, damaged: inflate.err !== 0 };
}
