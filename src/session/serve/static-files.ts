import { type FileHandle, open, realpath } from "node:fs/promises";
import type { IncomingMessage, ServerResponse } from "node:http";
import { extname, join, sep } from "node:path";
import { pipeline } from "node:stream/promises";

const TYPES: Readonly<Record<string, string>> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".mjs": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".json": "application/json; charset=utf-8",
  ".map": "application/json; charset=utf-8",
  ".webmanifest": "application/manifest+json",
  ".svg": "image/svg+xml",
  ".png": "image/png",
  ".webp": "image/webp",
  ".jpg": "image/jpeg",
  ".ico": "image/x-icon",
  ".woff2": "font/woff2",
  ".wasm": "application/wasm",
  ".txt": "text/plain; charset=utf-8",
};

/** Sent with everything: nobody frames the page, guesses types, or hears of its address. */
export const SAFE_HEADERS: Readonly<Record<string, string>> = {
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "cross-origin-resource-policy": "same-origin",
  "cross-origin-opener-policy": "same-origin",
  "content-security-policy": "frame-ancestors 'none'; base-uri 'self'; object-src 'none'",
};

/**
 * The file of a folder that a URL's path means; undefined for everything else: paths that are no UTF-8 or have zeros, backslashes,
 * `.` or `..` in them, hidden files, links that lead out of the folder, and what is no plain file.
 *
 * @param path as it stands in the request, percent-encoded, without its query
 */
export async function openWithin(root: string, path: string): Promise<FileHandle | undefined> {
  const parts = decoded(path)?.replace(/^\//, "").split("/");
  if (!parts) return undefined;
  if (parts.at(-1) === "") parts.splice(-1, 1, "index.html");
  const isPlain = (part: string) => part !== "" && !part.startsWith(".") && !/[\0\\:]/.test(part);
  if (!parts.every(isPlain)) return undefined;
  let handle: FileHandle | undefined;
  try {
    const folder = await realpath(root);
    const file = await realpath(join(folder, ...parts));
    if (!file.startsWith(folder + sep)) return undefined;
    handle = await open(file, "r");
    if ((await handle.stat()).isFile()) return handle;
  } catch {
    // Not there, or not for us.
  }
  await handle?.close();
  return undefined;
}

function decoded(path: string): string | undefined {
  try {
    return decodeURIComponent(path);
  } catch {
    return undefined;
  }
}

/** Answers a request for a file of the folder, or for a range of it; 404 for what is none. */
export async function sendFile(
  root: string,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const [path] = request.url!.split(/[?#]/);
  const file = await openWithin(root, path!);
  if (!file) return refuse(response, 404, "there is no such file");
  try {
    const { size, mtimeMs } = await file.stat();
    const name = path!.endsWith("/") ? ".html" : extname(path!).toLowerCase();
    const tag = `"${size.toString(36)}-${Math.trunc(mtimeMs).toString(36)}"`;
    const headers = {
      ...SAFE_HEADERS,
      "content-type": TYPES[name] ?? "application/octet-stream",
      "accept-ranges": "bytes",
      "cache-control": "no-cache",
      etag: tag,
    };
    if (request.headers["if-none-match"] === tag) return void response.writeHead(304, headers).end();
    const range = rangeOf(request.headers.range, size);
    if (range === "outside") {
      return void response.writeHead(416, { ...headers, "content-range": `bytes */${size}` }).end();
    }
    const { first, last } = range ?? { first: 0, last: size - 1 };
    const length = last - first + 1;
    response.writeHead(range ? 206 : 200, {
      ...headers,
      "content-length": length,
      ...(range && { "content-range": `bytes ${first}-${last}/${size}` }),
    });
    if (request.method === "HEAD" || length === 0) return void response.end();
    await pipeline(file.createReadStream({ start: first, end: last, autoClose: false }), response);
  } catch {
    response.destroy(); // whoever asked has gone, or the file has
  } finally {
    await file.close().catch(() => {});
  }
}

/** One range of bytes; undefined for the whole file, which is also the answer to what is not understood. */
function rangeOf(
  header: string | undefined,
  size: number,
): { first: number; last: number } | "outside" | undefined {
  const [, from, to] = /^bytes=(\d*)-(\d*)$/.exec(header ?? "") ?? [];
  if (from === undefined || (from === "" && to === "")) return undefined;
  const first = from === "" ? Math.max(0, size - Number(to)) : Number(from);
  const last = from === "" || to === "" ? size - 1 : Math.min(Number(to), size - 1);
  return first >= size || first > last ? "outside" : { first, last };
}

/** Answers with an error in words. */
export function refuse(response: ServerResponse, status: number, why: string): void {
  response.writeHead(status, {
    ...SAFE_HEADERS,
    "content-type": "text/plain; charset=utf-8",
    connection: "close",
  });
  response.end(`xpatch: ${why}\n`);
}
