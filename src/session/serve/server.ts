import { existsSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { type WebSocket, WebSocketServer } from "ws";
import { SessionError, XpatchError } from "../../errors.ts";
import type { SessionHost } from "../host.ts";
import { encodeMessage } from "../messages/message-codec.ts";
import type { Bounds } from "../messages/results.ts";
import { encodeError } from "../messages/wire-error.ts";
import { SESSION_PATH, SUBPROTOCOL } from "../ports/socket-port.ts";
import { bracketed, isOwnHost, isOwnOrigin, type Names, newToken, sameToken, tokenOf } from "./access.ts";
import { socketEnd } from "./socket-end.ts";
import { refuse, sendFile } from "./static-files.ts";

/** What `xpatch serve` takes of a client: enough for photographs, too little to fill the machine. */
export const SERVER_BOUNDS: Bounds = {
  messageBytes: 64 * 2 ** 20,
  picturePixels: 32 * 2 ** 20,
  pictureBytes: 512 * 2 ** 20,
  waiting: 64,
  handles: 1024,
};

export interface ServerOptions {
  /** Default 127.0.0.1: nobody but this machine. */
  readonly host?: string;
  /** Default: any that is free. */
  readonly port?: number;
  /** Folder of the built page; without it there are sessions alone. */
  readonly page?: string | undefined;
  readonly token?: string;
  readonly allowedHosts?: readonly string[];
  readonly allowedOrigins?: readonly string[];
  /** Sessions at a time. Default 16. */
  readonly clients?: number;
  /** How often to ask clients whether they are there, in milliseconds. Default 15 s. */
  readonly pingEvery?: number;
  /** Told of whatever is refused. */
  readonly note?: (text: string) => void;
}

/** The page's service worker, which would open it without asking the server. */
const KEEPS_PAGE = "/service-worker.js";
/** Codes of our own, of those that RFC 6455 leaves to applications. */
const WRONG_TOKEN = 4401;
const TOO_MANY = 4429;
/** Pings that may go unanswered: a machine that computes on all cores is slow to answer. */
const MISSED_PINGS = 3;

/** A server of sessions, and of the page that has them. */
export class SessionServer {
  /** With the token: whoever has it may do all that the host does. */
  readonly link: string;
  readonly url: string;
  readonly #http: Server;
  readonly #sockets: WebSocketServer;
  readonly #host: SessionHost;
  readonly #pings: NodeJS.Timeout;

  private constructor(
    http: Server,
    sockets: WebSocketServer,
    host: SessionHost,
    url: string,
    token: string,
    pingEvery: number,
  ) {
    this.#http = http;
    this.#sockets = sockets;
    this.#host = host;
    this.url = url;
    this.link = `${url}#token=${token}`;
    this.#pings = setInterval(() => pingAll(sockets), pingEvery);
    this.#pings.unref();
  }

  /** Begins to listen. Throws XpatchError where it cannot. */
  static async open(sessions: SessionHost, options: ServerOptions = {}): Promise<SessionServer> {
    const { host = "127.0.0.1", port = 0, token = newToken(), page, note = () => {} } = options;
    const { clients = 16, pingEvery = 15_000 } = options;
    const { allowedHosts = [], allowedOrigins = [] } = options;
    const sockets = new WebSocketServer({
      noServer: true,
      maxPayload: sessions.bounds.messageBytes,
      perMessageDeflate: false,
      // Without it the token would be sent back as the protocol that was chosen.
      handleProtocols: () => SUBPROTOCOL,
    });
    const accepted = new Set<WebSocket>();
    let names: Names = { host, port, allowedHosts, allowedOrigins };
    const http = createServer({ headersTimeout: 10_000, requestTimeout: 30_000 }, (request, response) => {
      answer(request, response, names, page, note);
    });
    http.on("upgrade", (request: IncomingMessage, socket: Socket, head: Buffer) => {
      socket.on("error", () => socket.destroy());
      const why = refusal(request, names);
      if (why !== undefined) {
        note(`refused a session: ${why}`);
        socket.end(
          `HTTP/1.1 403 Forbidden\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\nxpatch: ${why}\n`,
        );
        return;
      }
      sockets.handleUpgrade(request, socket, head, (opened) => {
        if (!sameToken(tokenOf(request), token)) {
          note("refused a session: wrong token");
          turnAway(
            opened,
            WRONG_TOKEN,
            "wrong token: take the link that `xpatch serve` printed when it was last started",
          );
        } else if (accepted.size >= clients) {
          note(`refused a session: there are ${clients} already`);
          turnAway(opened, TOO_MANY, `expected at most ${clients} sessions at a time`);
        } else {
          accepted.add(opened);
          opened.on("close", () => accepted.delete(opened));
          sessions.attach(watched(opened)).catch(() => opened.terminate());
        }
      });
    });
    // Also those that never say what they want.
    http.maxConnections = 4 * clients + 64;
    http.on("clientError", (_error, socket) => socket.destroy());
    await listening(http, host, port);
    names = { ...names, port: (http.address() as AddressInfo).port };
    const shown = host === "0.0.0.0" || host === "::" ? "127.0.0.1" : bracketed(host);
    return new SessionServer(http, sockets, sessions, `http://${shown}:${names.port}/`, token, pingEvery);
  }

  /** Sessions that are open. */
  get clients(): number {
    return this.#sockets.clients.size;
  }

  /** Ends all sessions and stops listening; then closes the host. */
  async close(): Promise<void> {
    clearInterval(this.#pings);
    for (const socket of this.#sockets.clients) {
      socket.close(1001, "xpatch serve has been stopped");
      setTimeout(() => socket.terminate(), 500).unref();
    }
    const closed = new Promise<void>((resolve) => {
      this.#http.close(() => resolve());
    });
    this.#http.closeIdleConnections();
    await this.#host.close();
    for (const socket of this.#sockets.clients) socket.terminate();
    this.#http.closeAllConnections();
    await closed;
  }
}

/** Begins to listen. Throws XpatchError where it cannot. */
export function listening(http: Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    http.once("error", (cause: NodeJS.ErrnoException) => {
      const hint = cause.code === "EADDRINUSE" ? "; --port takes another, and 0 any that is free" : "";
      reject(new XpatchError(`cannot listen on ${host}, port ${port}: ${cause.message}${hint}`, { cause }));
    });
    http.listen(port, host, () => resolve());
  });
}

function answer(
  request: IncomingMessage,
  response: ServerResponse,
  names: Names,
  page: string | undefined,
  note: (text: string) => void,
): void {
  const { method, headers } = request;
  if (!isOwnHost(headers.host, names)) {
    note(`refused a request for the host ${JSON.stringify(headers.host)}`);
    refuse(response, 403, "this server does not go by that name (--allow-host)");
  } else if (method !== "GET" && method !== "HEAD") {
    refuse(response, 405, "expected GET or HEAD");
  } else if (page === undefined || !existsSync(page)) {
    refuse(response, 404, "sessions are served here, but no page; npm run build:web builds it");
  } else if (request.url!.split(/[?#]/)[0] === KEEPS_PAGE) {
    refuse(
      response,
      404,
      "browsers do not keep the page of a server with sessions: it is of the server's version",
    );
  } else {
    sendFile(page, request, response).catch(() => response.destroy());
  }
}

/** Why a request for a session is refused, if it is; the token is looked at later, when there is a way to say so. */
function refusal({ url, headers }: IncomingMessage, names: Names): string | undefined {
  const { host, origin } = headers;
  if (!isOwnHost(host, names))
    return `this server does not go by the name ${JSON.stringify(host)} (--allow-host)`;
  if (!isOwnOrigin(origin, host, names))
    return `pages of ${JSON.stringify(origin)} are not let in (--allow-origin)`;
  if (url?.replace(/[?#].*/, "") !== `/${SESSION_PATH}`) return `sessions are at /${SESSION_PATH}`;
  return undefined;
}

/** Says why in a message, since a browser tells a page nothing of a connection that was refused. */
function turnAway(socket: WebSocket, code: number, why: string): void {
  socket.on("error", () => socket.terminate());
  const error = new SessionError(why, { code: code === TOO_MANY ? "bounds" : "refused" });
  socket.send(encodeMessage({ type: "error", error: encodeError(error) }));
  socket.close(code, why.slice(0, 100));
  setTimeout(() => socket.terminate(), 1000).unref();
}

/** Pings that a client has not answered. */
const missed = new WeakMap<WebSocket, number>();

function watched(socket: WebSocket) {
  socket.on("pong", () => missed.set(socket, 0));
  return socketEnd(socket);
}

function pingAll({ clients }: WebSocketServer): void {
  for (const socket of clients) {
    const count = missed.get(socket) ?? 0;
    if (count >= MISSED_PINGS) socket.terminate();
    else {
      missed.set(socket, count + 1);
      socket.ping();
    }
  }
}
