import { CheckpointError } from "../../../src/errors.ts";
import { Attempts, retrying } from "../../../src/model/checkpoint/source/retry.ts";
import { hasher } from "./hasher.ts";
import { type KnownFile, keyOf } from "./manifest.ts";
import { lockOf, NoRoomError, type Vault } from "./vault.ts";

/** A connection that brought this much before it broke does not count as a failed attempt. */
const PROGRESS_BYTES = 2 ** 20;
/** How often the progress of another tab is looked at. */
const LOOK_MS = 300;

export interface FetchFileOptions {
  readonly signal: AbortSignal;
  /** Told how many bytes of the file are there. */
  readonly onBytes: (bytes: number) => void;
  readonly fetch?: typeof fetch;
}

/**
 * Brings a file into the vault, unless it is there: what an earlier visit has left is gone on with, what another tab is fetching is
 * waited for. It is there when its hash is right.
 *
 * @throws CheckpointError when the server does not send it, or sends another; NoRoomError when the browser has no more room
 */
export async function fetchFile(vault: Vault, file: KnownFile, options: FetchFileOptions): Promise<void> {
  const { signal, onBytes } = options;
  const key = keyOf(file);
  if (await isThere(vault, file)) return onBytes(file.bytes);
  let look: ReturnType<typeof setInterval> | undefined;
  try {
    look = setInterval(() => {
      vault.part(key).then(
        ({ size }) => look !== undefined && onBytes(size),
        () => {},
      );
    }, LOOK_MS);
    await navigator.locks.request(lockOf(key), { signal }, async () => {
      clearInterval(look);
      look = undefined;
      if (!(await isThere(vault, file))) await fetchInto(vault, file, options);
      onBytes(file.bytes);
    });
  } finally {
    clearInterval(look);
    look = undefined;
  }
}

async function isThere(vault: Vault, { bytes, ...file }: KnownFile): Promise<boolean> {
  const key = keyOf(file);
  const kept = await vault.whole(key);
  if (kept === undefined) return false;
  if (kept.size === bytes) return true;
  await vault.removeFile(key); // somebody meddled with it
  return false;
}

async function fetchInto(
  vault: Vault,
  file: KnownFile,
  { signal, onBytes, fetch = globalThis.fetch }: FetchFileOptions,
): Promise<void> {
  const { path, bytes, algorithm, hash, url } = file;
  const key = keyOf(file);
  const before = await vault.part(key);
  let at = before.size > bytes ? 0 : before.size;
  let writer = await vault.write(key, at === 0);
  try {
    let check = hasher(algorithm, bytes);
    if (at > 0) for await (const chunk of chunksOf(before.stream())) check.update(chunk);
    onBytes(at);
    const ask = retrying(fetch);
    const attempts = new Attempts();
    while (at < bytes) {
      signal.throwIfAborted();
      let response: Response;
      try {
        // The vault is the cache; the browser's own would keep it twice.
        response = await ask(url, {
          signal,
          cache: "no-store",
          headers: at > 0 ? { Range: `bytes=${at}-` } : {},
        });
      } catch (cause) {
        signal.throwIfAborted();
        throw new CheckpointError(`${path}: ${url} cannot be reached`, { cause });
      }
      if (!response.ok || !response.body || isPage(response, path)) {
        await response.body?.cancel();
        const answer = response.ok ? "an HTML page" : `${response.status} ${response.statusText}`.trimEnd();
        throw new CheckpointError(`${path}: the server answered ${answer} where ${url} was asked for`);
      }
      if (at > 0 && response.status !== 206) {
        // It does not do ranges: from the start, then.
        await writer.close();
        writer = await vault.write(key, true);
        check = hasher(algorithm, bytes);
        at = 0;
      }
      const begin = at;
      let problem: unknown;
      try {
        for await (const chunk of chunksOf(response.body)) {
          if (at + chunk.length > bytes)
            throw new CheckpointError(`${path}: longer than the ${bytes} bytes expected`);
          await writer.append(chunk);
          check.update(chunk);
          at += chunk.length;
          onBytes(at);
        }
      } catch (error) {
        signal.throwIfAborted();
        const isFull = error instanceof NoRoomError || (error as Error)?.name === "QuotaExceededError";
        if (isFull || error instanceof CheckpointError) {
          await writer.close().catch(() => {});
          await vault.removeFile(key); // gone on with, it would be no better
          throw isFull ? new NoRoomError("the browser's storage for this site is full") : error;
        }
        problem = error;
      }
      if (at - begin >= PROGRESS_BYTES) attempts.reset();
      if (at < bytes && !(await attempts.another())) {
        throw new CheckpointError(`${path}: broke off after ${at} of ${bytes} bytes`, { cause: problem });
      }
    }
    await writer.close();
    const found = check.digest();
    if (found !== hash) {
      await vault.removeFile(key);
      throw new CheckpointError(
        `${path}: what ${url} sent is damaged or another file: expected ${algorithm} ${hash}, found ${found}`,
      );
    }
  } finally {
    await writer.close().catch(() => {});
  }
  await vault.finish(key);
}

/** Servers of applications answer what they do not have with the application. */
function isPage({ headers }: Response, path: string): boolean {
  return /^text\/html\b/i.test(headers.get("content-type") ?? "") && !/\.html?$/i.test(path);
}

async function* chunksOf(
  stream: ReadableStream<Uint8Array<ArrayBuffer>>,
): AsyncGenerator<Uint8Array<ArrayBuffer>, void, undefined> {
  const reader = stream.getReader();
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
