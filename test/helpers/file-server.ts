import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export type Listener = (request: IncomingMessage, response: ServerResponse) => void;

/** HTTP servers on this machine, closed together. */
export class FileServers {
  readonly #servers: Server[] = [];

  /** The address of a server, without a slash behind it. */
  async start(listener: Listener): Promise<string> {
    const server = createServer(listener);
    this.#servers.push(server);
    await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  close(): void {
    for (const server of this.#servers) {
      server.close();
      server.closeAllConnections();
    }
  }
}

/** What a request is for, without the slash in front and the query. */
export function pathOf(request: IncomingMessage): string {
  return decodeURIComponent(request.url!.replace(/^\//, "").replace(/\?.*/, ""));
}

/** First and last byte of the range that is asked for; the last is the file's where the range is open. */
export function rangeOf(request: IncomingMessage, size: number): [first: number, last: number] {
  const [, first, last] = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "bytes=0-")!;
  return [Number(first), last ? Math.min(Number(last), size - 1) : size - 1];
}

/** Answers a request for a file or for a range of it as a well-behaved server does. */
export function sendRange(
  request: IncomingMessage,
  response: ServerResponse,
  file: Uint8Array,
  headers: Record<string, string> = {},
): void {
  if (!request.headers.range) {
    return void response.writeHead(200, { "content-length": file.length, ...headers }).end(file);
  }
  const [first, last] = rangeOf(request, file.length);
  if (first >= file.length)
    return void response.writeHead(416, { "content-range": `bytes */${file.length}` }).end();
  const body = file.subarray(first, last + 1);
  const range = `bytes ${first}-${last}/${file.length}`;
  response.writeHead(206, { "content-range": range, "content-length": body.length, ...headers }).end(body);
}

/** A server of these files, by path; `log` gets each request's method, path and range. */
export function serveFiles(files: ReadonlyMap<string, Uint8Array>, log: string[] = []): Listener {
  return (request, response) => {
    const path = pathOf(request);
    const file = files.get(path);
    log.push(`${request.method} ${path} ${request.headers.range ?? ""}`);
    if (file) sendRange(request, response, file);
    else response.writeHead(404).end("no such file");
  };
}
