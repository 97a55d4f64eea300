import { CheckpointError } from "../../src/errors.ts";
import type { ByteSource } from "../../src/platform/platform.ts";

export async function collect(chunks: AsyncIterable<Uint8Array>): Promise<Uint8Array<ArrayBuffer>> {
  const parts: Uint8Array[] = [];
  for await (const chunk of chunks) parts.push(chunk);
  return concat(...parts);
}

export function concat(...parts: Uint8Array[]): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

export function utf8(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(text);
}

/** Bytes in memory that keep a record of what was read, and fail the test on a read outside of them. */
export function watchedSource(bytes: Uint8Array): ByteSource & { reads: number[]; closed: boolean } {
  return {
    name: "watched",
    size: bytes.length,
    reads: [],
    closed: false,
    async read(offset, length) {
      if (!(Number.isInteger(offset) && offset >= 0 && length >= 0 && offset + length <= bytes.length)) {
        throw new Error(`read of [${offset}, ${offset + length}) in ${bytes.length} bytes`);
      }
      this.reads.push(length);
      return Uint8Array.from(bytes.subarray(offset, offset + length));
    },
    async close() {
      this.closed = true;
    },
  };
}

/** Bytes in memory, handed out as views at odd addresses. */
export function oddSource(bytes: Uint8Array): ByteSource {
  const shifted = concat(Uint8Array.of(0), bytes);
  return { ...watchedSource(bytes), read: async (at, length) => shifted.subarray(at + 1, at + 1 + length) };
}

/** Seeded random integers below `n` (mulberry32). */
export function randomInt(seed: number): (n: number) => number {
  let state = seed >>> 0;
  return (n) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * n);
  };
}

const COUNTS = [0n, 1n, 31n, 2n ** 31n, 2n ** 32n - 1n, 2n ** 53n, 2n ** 61n, 2n ** 63n, 2n ** 64n - 1n];

/** A damaged copy: changed, inserted, deleted, repeated or cut-off bytes, or a 64-bit count overwritten. */
export function mutate(
  bytes: Uint8Array,
  random: (n: number) => number,
  headerBytes: number,
): Uint8Array<ArrayBuffer> {
  let out = Uint8Array.from(bytes);
  for (let edits = 1 + random(3); edits > 0; edits--) {
    const at = random(Math.min(headerBytes, out.length));
    const kind = random(7);
    if (kind === 0) out[at] = random(256);
    else if (kind === 1) out[at] = out[at]! ^ (1 << random(8));
    else if (kind === 2) out[at] = 0x30 + random(10);
    else if (kind === 3) out = concat(out.subarray(0, at), Uint8Array.of(random(256)), out.subarray(at));
    else if (kind === 4) out = concat(out.subarray(0, at), out.subarray(at + 1 + random(16)));
    else if (kind === 5)
      out = random(4) ? concat(out.subarray(0, at + 32), out.subarray(at)) : out.slice(0, at);
    else if (at + 8 <= out.length) {
      new DataView(out.buffer).setBigUint64(at, COUNTS[random(COUNTS.length)]!, true);
    }
    if (out.length === 0) return out;
  }
  return out;
}

/** The CheckpointError that `action` ends in, or its value. Any other error goes through, and fails the test. */
export async function checkpointErrorOr<T>(action: () => Promise<T>): Promise<T | CheckpointError> {
  try {
    return await action();
  } catch (error) {
    if (error instanceof CheckpointError) return error;
    throw error;
  }
}
