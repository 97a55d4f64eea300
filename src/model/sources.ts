import type { Blob, Fetch } from "../platform/global-types.ts";
import type { ByteSource } from "../platform/platform.ts";
import { CheckpointError } from "../tensor/errors.ts";

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

/**
 * A URL, read with range requests; undefined when the server says that there is no such file (404, 410). Throws
 * CheckpointError when the server cannot be reached, answers with another error, or does not do ranges.
 */
export async function urlSource(
  url: string,
  fetch: Fetch = globalThis.fetch,
): Promise<ByteSource | undefined> {
  const probe = await requestRange(url, fetch, 0, 1);
  await probe.body?.cancel();
  if (probe.status === 404 || probe.status === 410) return undefined;
  // A file of no bytes has no range that could be asked for.
  const size = probe.status === 416 ? 0 : contentRange(url, probe).size;
  return {
    name: url,
    size,
    async read(offset, length) {
      checkRange(url, size, offset, length);
      if (length === 0) return new Uint8Array(0);
      const response = await requestRange(url, fetch, offset, length);
      try {
        const range = contentRange(url, response);
        if (range.begin !== offset || range.size !== size) {
          const found = `bytes from ${range.begin} of ${range.size}`;
          throw new CheckpointError(`${url}: asked for bytes from ${offset} of ${size}, got ${found}`);
        }
      } catch (error) {
        await response.body?.cancel();
        throw error;
      }
      return readBody(url, response, offset, length);
    },
    async close() {},
  };
}

async function requestRange(url: string, fetch: typeof globalThis.fetch, offset: number, length: number) {
  try {
    return await fetch(url, { headers: { Range: `bytes=${offset}-${offset + length - 1}` } });
  } catch (cause) {
    throw new CheckpointError(`${url}: cannot be reached: ${messageOf(cause)}`, { cause });
  }
}

/** Where a partial answer begins and how long the whole file is. */
function contentRange(url: string, response: Response): { begin: number; size: number } {
  if (response.status === 200) throw new CheckpointError(`${url}: the server does not answer range requests`);
  if (response.status !== 206) {
    throw new CheckpointError(`${url}: the server answered ${response.status} ${response.statusText}`);
  }
  const header = response.headers.get("content-range") ?? "";
  const [, begin, size] = /^bytes (\d+)-\d+\/(\d+)$/.exec(header) ?? [];
  if (begin === undefined) {
    throw new CheckpointError(
      `${url}: the server's Content-Range is ${JSON.stringify(header)}, without a size`,
    );
  }
  return { begin: Number(begin), size: Number(size) };
}

/** The body, into a buffer of the size asked for: a server that sends more is cut off. */
async function readBody(url: string, response: Response, offset: number, length: number) {
  const out = new Uint8Array(length);
  let at = 0;
  try {
    for (const reader = response.body!.getReader(); ; ) {
      const { done, value } = await reader.read();
      if (done) break;
      if (at + value.length > length) {
        await reader.cancel();
        throw new RangeError(`more than the ${length} bytes asked for`);
      }
      out.set(value, at);
      at += value.length;
    }
  } catch (cause) {
    throw new CheckpointError(`${url}: cannot be read: ${messageOf(cause)}`, { cause });
  }
  if (at !== length) throw short(url, offset, length, at);
  return out;
}

function checkRange(name: string, size: number, offset: number, length: number): void {
  if (offset < 0 || length < 0 || offset + length > size) {
    throw new CheckpointError(
      `${name}: bytes [${offset}, ${offset + length}) are not in a file of ${size} bytes`,
    );
  }
}

function short(name: string, offset: number, length: number, got: number): CheckpointError {
  return new CheckpointError(`${name}: expected ${length} bytes at ${offset}, found ${got}`);
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
