import { SessionError } from "../../errors.ts";
import type { WebSocket } from "../../platform/global-types.ts";
import { decodeMessage, encodeMessage } from "../messages/message-codec.ts";
import type { ClientPort, HostMessage } from "../messages/protocol.ts";

/** The subprotocol that both sides speak; the token goes along as a second one, since browsers send no headers of one's own. */
export const SUBPROTOCOL = "xpatch.session";
export const TOKEN_PREFIX = "xpatch.token.";
/** Where `xpatch serve` has its sessions. */
export const SESSION_PATH = "session";

/** A link of `xpatch serve` taken apart. Throws SessionError for what is none. */
export function readLink(link: string): { readonly url: string; readonly token: string } {
  const url = URL.canParse(link) ? new URL(link) : undefined;
  const token = new URLSearchParams(url?.hash.slice(1)).get("token");
  if (!url || !/^(https?|wss?):$/.test(url.protocol) || !token || !/^[\w-]+$/.test(token)) {
    throw new SessionError("expected a link as `xpatch serve` prints it: http://127.0.0.1:8265/#token=…", {
      code: "message",
    });
  }
  url.hash = "";
  url.search = "";
  url.protocol = url.protocol.replace("http", "ws");
  url.pathname = `${url.pathname.replace(/[^/]*$/, "")}${SESSION_PATH}`;
  return { url: url.href, token };
}

/** How {@link connectSocket} connects. */
export interface SocketOptions {
  /** Where there is no global one, as in Node 20: that of the package ws. */
  readonly WebSocket?: new (
    url: string,
    protocols: string[],
  ) => WebSocket;
}

/**
 * Connects to `xpatch serve`, from a browser, Node (from 22 on) or Deno: wherever there is a global WebSocket.
 *
 * @param link as `xpatch serve` prints it
 * @throws SessionError where there is nobody, or the connection is refused
 */
export async function connectSocket(link: string, options: SocketOptions = {}): Promise<ClientPort> {
  const { url, token } = readLink(link);
  const Socket = options.WebSocket ?? globalThis.WebSocket;
  if (!Socket) {
    throw new SessionError(
      "there is no WebSocket here; expected Node from 22 on, or connectSocket(link, { WebSocket }) with that of the package ws",
      { code: "refused" },
    );
  }
  const socket = new Socket(url, [SUBPROTOCOL, `${TOKEN_PREFIX}${token}`]);
  socket.binaryType = "arraybuffer";
  const port = socketPort(socket);
  await new Promise<void>((resolve, reject) => {
    socket.onopen = () => resolve();
    socket.onerror = () =>
      reject(
        new SessionError(
          `cannot connect to ${url}: is \`xpatch serve\` running there, and does it let this origin in?`,
          { code: "closed" },
        ),
      );
  });
  socket.onerror = null;
  return port;
}

/** The ready state of a WebSocket that is open. */
const OPEN = 1;

function socketPort(socket: WebSocket): ClientPort {
  // A refusal may come before anybody listens.
  const early: (() => void)[] = [];
  const hear = { message: (_: HostMessage): void => {}, end: (_?: Error): void => {} };
  let tell = (event: () => void): void => void early.push(event);
  let isOver = false;
  const end = (error?: Error) => {
    if (isOver) return;
    isOver = true;
    tell(() => hear.end(error));
  };
  socket.onmessage = ({ data }) => {
    try {
      const frame = typeof data === "string" ? data : new Uint8Array(data);
      const message = decodeMessage(frame) as HostMessage;
      tell(() => hear.message(message));
    } catch (error) {
      socket.close();
      end(error as Error);
    }
  };
  socket.onclose = ({ code, reason }) => end(code === NORMAL ? undefined : closedBy(code, reason));
  const port: ClientPort = {
    carriesBlobs: false,
    send(message) {
      if (socket.readyState !== OPEN) return;
      const frame = encodeMessage(message);
      const { maxBytes = Number.POSITIVE_INFINITY } = port;
      const bytes = typeof frame === "string" ? new TextEncoder().encode(frame).length : frame.length;
      if (bytes > maxBytes) {
        throw new SessionError(`expected a message of at most ${maxBytes} bytes, found ${bytes}`, {
          code: "bounds",
        });
      }
      socket.send(frame);
    },
    listen(onMessage, onEnd) {
      Object.assign(hear, { message: onMessage, end: onEnd });
      tell = (event) => event();
      for (const event of early.splice(0)) event();
    },
    close: () => socket.close(NORMAL),
  };
  return port;
}

/** Codes of RFC 6455. */
const NORMAL = 1000;
const TOO_LARGE = 1009;
/** Of a connection that broke off without a word. */
const ABNORMAL = 1006;

const CLOSED_BY: Readonly<Record<number, string>> = {
  [TOO_LARGE]: "a message was too large",
  [ABNORMAL]: "it broke off; is the server still running?",
};

function closedBy(code: number, reason: string): SessionError {
  const why = reason || (CLOSED_BY[code] ?? `code ${code}`);
  return new SessionError(`the connection ended: ${why}`, { code: code === TOO_LARGE ? "bounds" : "closed" });
}
