import type { RedisOptions } from "ioredis";
import { XpatchError } from "xpatch";

/** Where a Redis or Valkey server listens, and how to get in. */
export interface RedisAddress {
  /** Without the password: for messages. */
  readonly shown: string;
  readonly options: RedisOptions;
}

const EXPECTED =
  "expected redis://[user:password@]host[:port][/db], rediss://… (with TLS) or unix:/path/of/socket";

/**
 * Reads an address: `redis://` and `rediss://` (with TLS; NODE_EXTRA_CA_CERTS names authorities of one's own), also as `valkey://`
 * and `valkeys://`, and `unix:/path`, with `?password=` and `?user=` where it takes one. Throws XpatchError for anything else;
 * no message has the password in it.
 */
export function redisAddress(text: string): RedisAddress {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const scheme = url?.protocol.replace("valkey", "redis");
  if (url && scheme === "unix:") return socketAddress(url);
  // What is no URL may still have a password in it.
  if (!url) throw new XpatchError(`--redis: not an address; ${EXPECTED}`);
  if (scheme !== "redis:" && scheme !== "rediss:")
    throw new XpatchError(`--redis: addresses of ${url.protocol}//… are none of a Redis server; ${EXPECTED}`);
  const { hostname, port, pathname, search, hash } = url;
  const shown = `${url.protocol}//${url.host}${pathname === "/" ? "" : pathname}`;
  if (hostname === "") throw new XpatchError(`--redis: ${shown} has no host; ${EXPECTED}`);
  if (search !== "" || hash !== "")
    throw new XpatchError(`--redis: ${shown}: nothing may follow the number of the database; ${EXPECTED}`);
  return {
    shown,
    options: {
      host: hostname.replace(/^\[|\]$/g, ""),
      port: port === "" ? 6379 : Number(port),
      db: database(pathname.slice(1), shown),
      ...(url.username !== "" && { username: decoded(url.username, shown) }),
      ...(url.password !== "" && { password: decoded(url.password, shown) }),
      ...(scheme === "rediss:" && { tls: {} }),
    },
  };
}

function socketAddress({ pathname, searchParams }: URL): RedisAddress {
  const shown = `unix:${pathname}`;
  const unknown = [...searchParams.keys()].find((name) => !["user", "password", "db"].includes(name));
  if (unknown !== undefined)
    throw new XpatchError(`--redis: ${shown}: expected user, password or db behind "?", found "${unknown}"`);
  const [username, password] = [searchParams.get("user"), searchParams.get("password")];
  return {
    shown,
    options: {
      path: decoded(pathname, shown),
      db: database(searchParams.get("db") ?? "", shown),
      ...(username !== null && { username }),
      ...(password !== null && { password }),
    },
  };
}

function database(text: string, shown: string): number {
  if (/^\d{0,9}$/.test(text)) return Number(text);
  throw new XpatchError(`--redis: ${shown}: expected the number of a database, found "${text}"`);
}

function decoded(text: string, shown: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new XpatchError(`--redis: ${shown}: user, password or path are not percent-encoded as in a URL`);
  }
}
