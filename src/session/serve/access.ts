import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import type { IncomingMessage } from "node:http";
import { SUBPROTOCOL, TOKEN_PREFIX } from "../ports/socket-port.ts";

/** 256 random bits. */
export function newToken(): string {
  return randomBytes(32).toString("base64url");
}

/** Whether two tokens are the same, in a time that does not depend on how much of them is. */
export function sameToken(given: string, token: string): boolean {
  const digest = (text: string) => createHash("sha256").update(text).digest();
  return timingSafeEqual(digest(given), digest(token));
}

/** The token that a request for a session brings; empty where it brings none. */
export function tokenOf({ headers }: IncomingMessage): string {
  const offered = (headers["sec-websocket-protocol"] ?? "").split(",").map((each) => each.trim());
  if (!offered.includes(SUBPROTOCOL)) return "";
  return offered.find((each) => each.startsWith(TOKEN_PREFIX))?.slice(TOKEN_PREFIX.length) ?? "";
}

export interface Names {
  /** What the server listens on. */
  readonly host: string;
  readonly port: number;
  /** Names besides by which it may be called: of a proxy, of this machine in its network. Without port. */
  readonly allowedHosts: readonly string[];
  /** Origins of pages elsewhere that may connect: "https://example.org". */
  readonly allowedOrigins: readonly string[];
}

const LOOPBACK = ["localhost", "127.0.0.1", "[::1]"];
const ANY = new Set(["0.0.0.0", "::", "[::]"]);
/** An IPv4 address, or one of IPv6 in brackets: no name that somebody's name server could point here. */
const ADDRESS = /^(\d{1,3}(\.\d{1,3}){3}|\[[0-9a-f:.]+\])$/i;

export function isLoopback(host: string): boolean {
  return LOOPBACK.includes(bracketed(host)) || /^127(\.\d{1,3}){3}$/.test(host);
}

/** An IPv6 address as it stands in a URL. */
export function bracketed(host: string): string {
  return host.includes(":") && !host.startsWith("[") ? `[${host}]` : host;
}

/**
 * Whether a Host header names this server. A page of somebody else's whose name has come to point here (DNS rebinding) would be of the
 * same origin to a browser; only what it is called gives it away.
 */
export function isOwnHost(header: string | undefined, names: Names): boolean {
  const [, name, port] = /^(\[[0-9a-f:.]+\]|[^:[\]]+)(?::(\d+))?$/i.exec(header ?? "") ?? [];
  if (name === undefined) return false;
  const host = name.toLowerCase();
  if (names.allowedHosts.includes(host)) return true;
  if (Number(port ?? 80) !== names.port) return false;
  const own = bracketed(names.host).toLowerCase();
  if (host === own) return true;
  return isLoopback(names.host)
    ? LOOPBACK.includes(host)
    : ANY.has(own) && (ADDRESS.test(host) || host === "localhost");
}

/**
 * Whether a request comes from a page of this server, or of an origin that was let in; or from no page: programs send no Origin, and
 * need the token like everybody.
 */
export function isOwnOrigin(origin: string | undefined, host: string | undefined, names: Names): boolean {
  if (origin === undefined) return true;
  return names.allowedOrigins.includes(origin) || origin === `http://${host}` || origin === `https://${host}`;
}
