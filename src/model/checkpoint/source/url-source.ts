import type { Fetch } from "../../../platform/global-types.ts";
import type { ByteSource } from "../../../platform/platform.ts";
import { joinedReads } from "./joined-reads.ts";
import { answered, drop, RemoteFile } from "./remote-file.ts";
import type { Wait } from "./retry.ts";
import { checkRange, memorySource } from "./sources.ts";

/** Read with the first request, which also tells the size: enough for most headers of tensor files. */
const FIRST_BYTES = 128 * 2 ** 10;

/** What a server says in place of sending a file. */
export interface Absent {
  readonly absent: string;
}

/**
 * A URL, read with range requests; undefined when there is no such file: the server answers 404, 410 or 403, or sends an
 * HTML page in place of it, as development servers do. A file of at most 64 MiB may also be sent whole. Network errors,
 * 429, 5xx and answers that break off are tried again, three times.
 *
 * Throws CheckpointError when the server cannot be reached, answers with another error, or does not do ranges.
 */
export async function urlSource(
  url: string,
  fetch: Fetch = globalThis.fetch,
): Promise<ByteSource | undefined> {
  const opened = await openUrl(url, fetch);
  return "absent" in opened ? undefined : opened;
}

/** {@link urlSource} that says why there is no file. `wait` is for tests. */
export async function openUrl(url: string, fetch: Fetch, wait?: Wait): Promise<ByteSource | Absent> {
  const remote = new RemoteFile(url, fetch, wait);
  let length = FIRST_BYTES;
  let response = await (remote.isText ? remote.request() : remote.request(0, length));
  if (response.status === 416) {
    // Of no bytes, then; but some servers also refuse a range that goes beyond the end.
    await drop(response);
    length = 1;
    response = await remote.request(0, length);
  }
  switch (response.status) {
    case 416:
      await drop(response);
      return memorySource(new Uint8Array(0), remote.name);
    case 403:
    case 404:
    case 410:
      await drop(response);
      return { absent: answered(response) };
    case 200:
      return asFile(remote, response, await remote.whole(response));
    default:
      return asFile(remote, response, await remote.beginning(response, length));
  }
}

/** The file whose first bytes are here, unless they are those of a page. */
function asFile(
  remote: RemoteFile,
  response: Response,
  { bytes, size }: { bytes: Uint8Array<ArrayBuffer>; size: number },
): ByteSource | Absent {
  if (isPage(remote.name, response.headers.get("content-type"), bytes)) {
    return { absent: "the server sent an HTML page in place of it" };
  }
  const { name } = remote;
  if (bytes.length === size) return memorySource(bytes, name);
  return joinedReads({
    name,
    size,
    async read(offset, length) {
      checkRange(name, size, offset, length);
      const out = new Uint8Array(length);
      const known = bytes.subarray(offset, offset + length);
      out.set(known);
      await remote.fill(out, offset, size, known.length);
      return out;
    },
    async close() {},
  });
}

/** Development servers answer what they do not have with the page of the application, as if it were there. */
function isPage(path: string, type: string | null, bytes: Uint8Array<ArrayBuffer>): boolean {
  const text = (length: number) => new TextDecoder().decode(bytes.subarray(0, length));
  const start = text(512).trimStart();
  if (/^<(!doctype\s+html|html)\b/i.test(start)) return true;
  if (!start.startsWith("<") || !/^text\/html\b/i.test(type ?? "")) return false;
  return !(/\.jinja$/i.test(path) && /\{[{%]/.test(text(bytes.length))); // "<s>{{ … }}" is a template
}
