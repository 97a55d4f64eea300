import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import {
  bracketed,
  isOwnHost,
  isOwnOrigin,
  type Names,
  newToken,
  sameToken,
} from "#src/session/serve/access";
import { listening } from "#src/session/serve/server";
import { refuse, SAFE_HEADERS } from "#src/session/serve/static-files";
import { type GivenUp, type GridProgress, progressRows, totalOf } from "./progress.ts";
import { HTML, SCRIPT, STYLE } from "./progress-html.ts";

/** What the page shows. */
export interface Shown {
  readonly store: string;
  readonly rows: readonly (readonly string[])[];
  readonly done: number;
  readonly cells: number;
  readonly workers: number | undefined;
  readonly givenUp: readonly GivenUp[];
  readonly isOver: boolean;
}

/** Given-up cells on the page: the others are in the store and in what the command prints. */
const MOST_GIVEN_UP = 100;

const hashOf = (text: string) => `'sha256-${createHash("sha256").update(text).digest("base64")}'`;

/** Nothing is loaded from anywhere, and nothing runs but the page's own script. */
const POLICY = [
  "default-src 'none'",
  `script-src ${hashOf(SCRIPT)}`,
  `style-src ${hashOf(STYLE)}`,
  "connect-src 'self'",
  SAFE_HEADERS["content-security-policy"],
].join("; ");

/**
 * A page with the progress of a grid, for whoever has the link: the token in it is asked for with the numbers, as `xpatch serve`
 * does. Host and Origin are checked as there.
 */
export class ProgressPage {
  readonly link: string;
  readonly #http: Server;
  readonly #shown: { current: string };

  private constructor(http: Server, link: string, shown: { current: string }) {
    this.#http = http;
    this.link = link;
    this.#shown = shown;
  }

  /** Throws XpatchError where it cannot listen. */
  static async open(host: string, port: number, allowedHosts: readonly string[] = []): Promise<ProgressPage> {
    const token = newToken();
    let names: Names = { host, port, allowedHosts, allowedOrigins: [] };
    const shown = { current: "null" };
    const http = createServer({ headersTimeout: 10_000, requestTimeout: 30_000 }, (request, response) => {
      answer(request, response, names, token, shown);
    });
    http.maxConnections = 256;
    http.on("clientError", (_error, socket) => socket.destroy());
    await listening(http, host, port);
    names = { ...names, port: (http.address() as AddressInfo).port };
    const name = host === "0.0.0.0" || host === "::" ? "127.0.0.1" : bracketed(host);
    return new ProgressPage(http, `http://${name}:${names.port}/#token=${token}`, shown);
  }

  show(store: string, progress: GridProgress, givenUp: readonly GivenUp[], isOver: boolean): void {
    const { finished, cells } = totalOf(progress);
    const shown: Shown = {
      store,
      rows: progressRows(progress),
      done: finished,
      cells,
      workers: progress.workers,
      givenUp: givenUp.slice(0, MOST_GIVEN_UP),
      isOver,
    };
    this.#shown.current = JSON.stringify(shown);
  }

  close(): Promise<void> {
    return new Promise((settle) => {
      this.#http.close(() => settle());
      this.#http.closeAllConnections();
    });
  }
}

function answer(
  { method, headers, url }: IncomingMessage,
  response: ServerResponse,
  names: Names,
  token: string,
  shown: { readonly current: string },
): void {
  const path = url!.split(/[?#]/)[0];
  if (!isOwnHost(headers.host, names)) {
    refuse(response, 403, "this server does not go by that name");
  } else if (method !== "GET" && method !== "HEAD") {
    refuse(response, 405, "expected GET or HEAD");
  } else if (path === "/") {
    const type = "text/html; charset=utf-8";
    response.writeHead(200, { ...SAFE_HEADERS, "content-security-policy": POLICY, "content-type": type });
    response.end(method === "HEAD" ? undefined : HTML);
  } else if (path !== "/progress") {
    refuse(response, 404, "there is no such page");
  } else if (!isOwnOrigin(headers.origin, headers.host, names)) {
    refuse(response, 403, "pages from elsewhere are not let in");
  } else if (!sameToken(/^Bearer (.+)$/.exec(headers.authorization ?? "")?.[1] ?? "", token)) {
    refuse(
      response,
      401,
      "wrong token: take the link that `xpatch grid serve` printed when it was last started",
    );
  } else {
    const type = "application/json; charset=utf-8";
    response.writeHead(200, { ...SAFE_HEADERS, "content-type": type, "cache-control": "no-store" });
    response.end(method === "HEAD" ? undefined : shown.current);
  }
}
