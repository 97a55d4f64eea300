import { CheckpointError } from "../../../errors.ts";
import type { Blob } from "../../../platform/global-types.ts";
import type { ByteSource } from "../../../platform/platform.ts";

/** Bytes that are in memory already. Reads are copies. */
export function memorySource(bytes: Uint8Array, name = "memory"): ByteSource {
  return {
    name,
    size: bytes.length,
    async read(offset, length) {
      checkRange(name, bytes.length, offset, length);
      return Uint8Array.from(bytes.subarray(offset, offset + length));
    },
    async close() {},
  };
}

/** A Blob: a file that a user picked in a browser, or one of the hub's lazily fetched ones. */
export function blobSource(blob: Blob, name: string): ByteSource {
  return {
    name,
    size: blob.size,
    async read(offset, length) {
      checkRange(name, blob.size, offset, length);
      let bytes: Uint8Array<ArrayBuffer>;
      try {
        bytes = new Uint8Array(await blob.slice(offset, offset + length).arrayBuffer());
      } catch (cause) {
        throw new CheckpointError(`${name}: cannot be read: ${messageOf(cause)}`, { cause });
      }
      if (bytes.length !== length) throw short(name, offset, length, bytes.length);
      return bytes;
    },
    async close() {},
  };
}

/** Throws CheckpointError for bytes that are not in a file of `size` bytes. */
export function checkRange(name: string, size: number, offset: number, length: number): void {
  if (offset < 0 || length < 0 || offset + length > size) {
    throw new CheckpointError(
      `${name}: bytes [${offset}, ${offset + length}) are not in a file of ${size} bytes`,
    );
  }
}

export function short(name: string, offset: number, length: number, got: number): CheckpointError {
  return new CheckpointError(`${name}: expected ${length} bytes at ${offset}, found ${got}`);
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
