import { createReadStream, realpathSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, sep } from "node:path";

const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".json": "application/json",
  ".svg": "image/svg+xml",
  ".png": "image/png",
  ".wasm": "application/wasm",
};

/** Serves a folder on the loopback interface, ranges included. Gives the server and its address. */
export async function serveFolder(folder, port = 0) {
  const root = realpathSync(folder);
  const server = createServer((request, response) => {
    if (request.method !== "GET" && request.method !== "HEAD") return response.writeHead(405).end();
    const file = fileOf(root, request.url);
    if (!file) return response.writeHead(404, { "content-type": "text/plain" }).end("no such file");
    const { size } = statSync(file);
    const type = TYPES[extname(file)] ?? "application/octet-stream";
    // Names of assets change with what is in them.
    const kept = /[\\/]assets[\\/]/.test(file) ? "public, max-age=31536000, immutable" : "no-cache";
    const headers = { "content-type": type, "cache-control": kept, "accept-ranges": "bytes" };
    const range = rangeOf(request.headers.range, size);
    if (range === "none") return response.writeHead(416, { "content-range": `bytes */${size}` }).end();
    const [first, last] = range ?? [0, size - 1];
    const partly = range && { "content-range": `bytes ${first}-${last}/${size}` };
    response.writeHead(range ? 206 : 200, { ...headers, ...partly, "content-length": last - first + 1 });
    if (request.method === "HEAD" || size === 0) return response.end();
    createReadStream(file, { start: first, end: last })
      .on("error", () => response.destroy())
      .pipe(response);
  });
  await new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, "127.0.0.1", resolve);
  });
  return { server, address: `http://127.0.0.1:${server.address().port}/` };
}

/** The file that an address means; undefined where there is none within the folder. */
function fileOf(root, address) {
  try {
    const path = decodeURIComponent(new URL(address, "http://localhost").pathname);
    const file = realpathSync(join(root, path.endsWith("/") ? `${path}index.html` : path));
    return file.startsWith(root + sep) && statSync(file).isFile() ? file : undefined;
  } catch {
    return undefined;
  }
}

/** First and last byte; "none" where there are no such bytes; undefined for the whole file. */
function rangeOf(header, size) {
  const [, first, last] = /^bytes=(\d+)-(\d*)$/.exec(header ?? "") ?? [];
  if (first === undefined) return undefined;
  if (Number(first) >= size || (last && Number(last) < Number(first))) return "none";
  return [Number(first), last ? Math.min(Number(last), size - 1) : size - 1];
}
