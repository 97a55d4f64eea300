import { CheckpointError } from "../../../errors.ts";
import type { Fetch } from "../../../platform/global-types.ts";
import { Attempts, retrying, type Wait } from "./retry.ts";
import { messageOf, short } from "./sources.ts";

/** Files of text are fetched as a whole, which the server may compress. */
const TEXT_FILE = /\.(json|jinja|txt)$/i;
const MAX_TEXT_BYTES = 256 * 2 ** 20;
/** The most that is kept of a server that sends whole files in place of ranges. */
const MAX_WHOLE_BYTES = 64 * 2 ** 20;
/** A connection that brought this much before it broke does not count as a failed attempt. */
const PROGRESS_BYTES = 2 ** 20;

/** An address without what only the server needs to know: the query of a signed URL is as good as a password. */
export function publicName(url: string): string {
  return url.replace(/[?#].*$/s, "");
}

/** A file of a server, and how to ask for it. */
export class RemoteFile {
  readonly name: string;
  readonly #url: string;
  readonly #fetch: Fetch;
  readonly #wait: Wait | undefined;

  constructor(url: string, fetch: Fetch, wait: Wait | undefined) {
    this.#url = url;
    this.name = publicName(url);
    this.#fetch = retrying(fetch, wait);
    this.#wait = wait;
  }

  get isText(): boolean {
    return TEXT_FILE.test(this.name);
  }

  /** Asks for `length` bytes from `offset` on, for all from there, or for the file. */
  async request(offset?: number, length?: number): Promise<Response> {
    const end = length === undefined ? "" : offset! + length - 1;
    const headers: Record<string, string> = offset === undefined ? {} : { Range: `bytes=${offset}-${end}` };
    try {
      return await this.#fetch(this.#url, { headers });
    } catch (cause) {
      throw new CheckpointError(`${this.name}: cannot be reached: ${messageOf(cause)}`, { cause });
    }
  }

  /** At most `length` bytes from the start of the file, and its size, from the answer to a request for them. */
  async beginning(
    response: Response,
    length: number,
  ): Promise<{ bytes: Uint8Array<ArrayBuffer>; size: number }> {
    const size = await this.#sizeFrom(response, length);
    const bytes = new Uint8Array(Math.min(length, size));
    await this.fill(bytes, 0, size, 0, response);
    return { bytes, size };
  }

  /** The file's size, by an answer that begins with its first byte. */
  async #sizeFrom(response: Response, asked: number): Promise<number> {
    try {
      const range = this.#range(response);
      if (range) return range.size;
      const length = lengthOf(response);
      if (length !== undefined && length < asked) return length;
      const all = await this.request(0);
      await drop(all);
      const size = lengthOf(all);
      if ((all.status === 206 || all.status === 200) && size !== undefined) return size;
      throw new CheckpointError(
        `${this.name}: the server does not say how long the file is; for a page of another origin it has to send ` +
          "Access-Control-Expose-Headers: Content-Range",
      );
    } catch (error) {
      await drop(response);
      throw error;
    }
  }

  /** A file that the server sends whole, asked for it or not. */
  async whole(first: Response): Promise<{ bytes: Uint8Array<ArrayBuffer>; size: number }> {
    const most = this.isText ? MAX_TEXT_BYTES : MAX_WHOLE_BYTES;
    const attempts = new Attempts(this.#wait);
    for (let response = first; ; ) {
      const length = lengthOf(response);
      if (length !== undefined && length > most) {
        await drop(response);
        throw this.#tooLong(length, most);
      }
      let problem: unknown;
      try {
        const bytes = await this.#upTo(most, response);
        // Of another origin one cannot see whether it was compressed; a browser finds out itself what broke off.
        const isWhole = length === undefined || bytes.length === length || response.type === "cors";
        if (isWhole) return { bytes, size: bytes.length };
        problem = short(this.name, 0, length, bytes.length);
      } catch (error) {
        if (error instanceof CheckpointError) throw error;
        problem = new CheckpointError(`${this.name}: cannot be read: ${messageOf(error)}`, { cause: error });
      }
      if (!(await attempts.another())) throw problem;
      response = await this.request(this.isText ? undefined : 0);
      if (response.status !== 200) {
        await drop(response);
        throw problem;
      }
    }
  }

  /** `length` where it is known. */
  #tooLong(length: number | undefined, most: number): CheckpointError {
    if (!this.isText) return this.#withoutRanges(length === undefined ? "" : `of ${length} bytes `);
    return new CheckpointError(`${this.name}: ${length ?? "its"} bytes are over the limit of ${most}`);
  }

  #withoutRanges(size: string): CheckpointError {
    return new CheckpointError(
      `${this.name}: the server does not answer range requests (206 Partial Content): it sends the whole file ${size}` +
        `where a part was asked for, which is accepted up to ${MAX_WHOLE_BYTES} bytes`,
    );
  }

  /** The body. Throws CheckpointError when it is longer than that. */
  async #upTo(most: number, response: Response): Promise<Uint8Array<ArrayBuffer>> {
    const parts: Uint8Array<ArrayBuffer>[] = [];
    let length = 0;
    for await (const part of chunksOf(response)) {
      length += part.length;
      if (length > most) throw this.#tooLong(undefined, most);
      parts.push(part);
    }
    return new Uint8Array(await new Blob(parts).arrayBuffer());
  }

  /**
   * Fills `out` with the bytes of the file from `offset` on, `at` of which are there already. What breaks off is gone on with
   * where it broke off. `response` is the answer to a request for them, if one was made.
   */
  async fill(
    out: Uint8Array<ArrayBuffer>,
    offset: number,
    size: number,
    at: number,
    response?: Response,
  ): Promise<void> {
    const attempts = new Attempts(this.#wait);
    let answer = response;
    while (at < out.length) {
      const begin = offset + at;
      answer ??= await this.request(begin, out.length - at);
      const available = await this.#check(answer, begin, size, out.length - at);
      let problem: unknown;
      let got = 0;
      try {
        for await (const chunk of chunksOf(answer)) {
          const wanted = available.length - got;
          if (chunk.length > wanted && !available.more) {
            throw new CheckpointError(
              `${this.name}: cannot be read: more than the ${available.length} bytes that were to come`,
            );
          }
          out.set(chunk.subarray(0, wanted), at + got);
          got += Math.min(chunk.length, wanted);
          if (chunk.length > wanted) break;
        }
      } catch (error) {
        if (error instanceof CheckpointError) throw error;
        problem = error;
      }
      answer = undefined;
      at += got;
      if (at === out.length) return;
      // A server may send less than it was asked for.
      if (problem === undefined && got === available.length && got > 0) continue;
      if (got >= PROGRESS_BYTES) attempts.reset();
      if (await attempts.another()) continue;
      if (problem === undefined) throw short(this.name, offset, out.length, at);
      throw new CheckpointError(`${this.name}: cannot be read: ${messageOf(problem)}`, { cause: problem });
    }
  }

  /** How many bytes of those asked for the answer has, and whether it goes on behind them. Throws where it has others. */
  async #check(answer: Response, begin: number, size: number, asked: number) {
    try {
      const range = this.#range(answer);
      if (range === undefined) {
        const length = lengthOf(answer);
        if (length === undefined || length === asked) return { length: asked, more: false };
        throw new CheckpointError(`${this.name}: asked for ${asked} bytes at ${begin}, got ${length}`);
      }
      if (range.begin !== begin || range.size !== size) {
        const found = `bytes from ${range.begin} of ${range.size}`;
        throw new CheckpointError(`${this.name}: asked for bytes from ${begin} of ${size}, got ${found}`);
      }
      const length = range.end - range.begin;
      return { length: Math.min(length, asked), more: length > asked };
    } catch (error) {
      await drop(answer);
      throw error;
    }
  }

  /** Where a partial answer lies and how long the whole file is; undefined where the browser hides it. */
  #range(answer: Response): { begin: number; end: number; size: number } | undefined {
    if (answer.status === 200) throw this.#withoutRanges("");
    if (answer.status !== 206) throw new CheckpointError(`${this.name}: ${answered(answer)}`);
    const header = answer.headers.get("content-range");
    if (header === null && answer.type === "cors") return undefined;
    const [, begin, last, size] = /^bytes (\d+)-(\d+)\/(\d+)$/.exec(header ?? "") ?? [];
    if (begin === undefined) {
      throw new CheckpointError(
        `${this.name}: the server's Content-Range is ${JSON.stringify(header ?? "")}, without a size`,
      );
    }
    const encoding = answer.headers.get("content-encoding") ?? "identity";
    if (encoding !== "identity") {
      throw new CheckpointError(
        `${this.name}: the server sends a part of the file compressed as a whole (Content-Encoding: ${encoding})`,
      );
    }
    return { begin: Number(begin), end: Number(last) + 1, size: Number(size) };
  }
}

/** What a server answered, in words. */
export function answered({ status, statusText, headers }: Response): string {
  const pause = headers.get("retry-after");
  return `the server answered ${status} ${statusText}`.trimEnd() + (pause ? ` (Retry-After: ${pause})` : "");
}

/** Bytes of the body, where the answer says; what was compressed on the way has another length than it says. */
function lengthOf(response: Response): number | undefined {
  const header = response.headers.get("content-length");
  return header === null || response.headers.has("content-encoding") ? undefined : Number(header);
}

async function* chunksOf(response: Response): AsyncGenerator<Uint8Array<ArrayBuffer>, void, undefined> {
  const reader = response.body?.getReader();
  if (!reader) return;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

/** Lets go of an answer that nobody reads. */
export async function drop(response: Response): Promise<void> {
  await response.body?.cancel().catch(() => {});
}
