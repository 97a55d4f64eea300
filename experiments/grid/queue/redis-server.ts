import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { chmodSync, existsSync, mkdirSync, readFileSync } from "node:fs";
import { createServer } from "node:net";
import { hostname } from "node:os";
import { join, resolve } from "node:path";
import type { Duplex } from "node:stream";
import { FileError, XpatchError } from "xpatch";
import { writeWhole } from "#src/platform/node-write";
import { type RedisAddress, redisAddress } from "./redis-address.ts";
import { redisProgram } from "./redis-program.ts";

/** How a server's folder says where it listens: readable by its owner alone. */
const ADDRESS_FILE = "address.json";

/** How long a server may take to answer; one that reads a long log at its start takes seconds. */
const START_SECONDS = 60;
const STOP_SECONDS = 10;

/**
 * Starts the server with its settings from standard input, and ends it when the other end of descriptor 3 is gone: with the
 * process that holds it, however that ended. Exits as the server does.
 */
const GUARD = `
exec 4<&0 </dev/null
"$0" - <&4 4<&- 3<&- &
server=$!
exec 4<&-
{ read -r _ <&3; kill "$server"; } 2>/dev/null &
reader=$!
exec 3<&-
wait "$server"
code=$?
kill "$reader" 2>/dev/null
exit "$code"`;

interface Place {
  /** The machine that it is a port of. */
  readonly host: string;
  readonly port: number;
  readonly password: string;
}

/**
 * A Redis of a grid's own, on a port of this machine alone, with a random password. Everything that it is told is in a log in
 * its folder, so that a server started there again goes on with the same queues, at the same address. It ends with this process,
 * even where that is killed.
 */
export class RedisServer {
  readonly address: RedisAddress;
  readonly #shell: ChildProcess;
  /** Resolves with why, when it has ended. */
  readonly #ended: Promise<string>;
  #isStopping = false;

  private constructor(program: string, address: RedisAddress) {
    this.address = address;
    this.#shell = spawn("/bin/sh", ["-c", GUARD, program], {
      // Out of the reach of the terminal's Ctrl-C: the grid says when the server ends.
      detached: true,
      stdio: ["pipe", "pipe", "pipe", "pipe"],
    });
    let said = "";
    for (const stream of [this.#shell.stdout!, this.#shell.stderr!]) {
      stream.on("data", (chunk: Buffer) => {
        said = `${said}${chunk}`.slice(-2000);
      });
    }
    // What it has not read when it ends is of no use to anybody.
    for (const stream of [this.#shell.stdin!, this.#lifeline]) stream.on("error", () => {});
    this.#ended = new Promise((settle) => {
      this.#shell.on("error", (error) => settle(error.message));
      this.#shell.on("close", (code, signal) => {
        this.#lifeline.destroy();
        settle(`${program} ended with ${signal ?? `status ${code}`}: ${lastLines(said)}`);
      });
    });
  }

  /**
   * Starts a server in a folder, which is made where there is none.
   *
   * @param options.persist - Whether to keep a log in the folder. Default: yes.
   * @param options.onEnd - Called should the server end by itself, with why.
   * @throws XpatchError where there is no program for it or it does not start
   */
  static async start(
    folder: string,
    {
      persist = true,
      onEnd = () => {},
    }: { readonly persist?: boolean; readonly onEnd?: (why: string) => void } = {},
  ): Promise<RedisServer> {
    const program = await redisProgram();
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    const place = await placeHere(folder);
    if (!(await isFree(place.port))) {
      throw new XpatchError(
        `port ${place.port} of this machine, at which workers look for the queue, is taken by another program; end that one, or ` +
          `delete ${join(folder, ADDRESS_FILE)} to have the queue at another port`,
      );
    }
    const server = new RedisServer(program, addressOf(place));
    server.#shell.stdin!.end(configOf(place, resolve(folder), persist));
    const failed = server.#ended.then((why) => {
      throw new XpatchError(`the queue's server does not start: ${why}`);
    });
    try {
      await Promise.race([answers(server.address), failed]);
    } catch (error) {
      await server.stop();
      throw error;
    }
    failed.catch(() => {});
    void server.#ended.then((why) => {
      if (!server.#isStopping) onEnd(why);
    });
    return server;
  }

  /** Ends the server, which writes down what it has first. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    // The guard sees the end of it, and asks the server to end.
    this.#lifeline.destroy();
    const tooLong = setTimeout(() => {
      if (this.#shell.pid !== undefined) process.kill(-this.#shell.pid, "SIGKILL");
    }, STOP_SECONDS * 1000);
    await this.#ended;
    clearTimeout(tooLong);
  }

  get #lifeline(): Duplex {
    return this.#shell.stdio[3] as Duplex;
  }
}

/**
 * The address of the server that a folder has or had; undefined where none was ever started there. Throws XpatchError where that was
 * on another machine: it can be reached from there only.
 */
export function addressIn(folder: string): RedisAddress | undefined {
  const place = placeOf(folder);
  if (place && place.host !== hostname()) {
    throw new XpatchError(
      `the queue of ${folder} is a server on ${place.host} that only ${place.host} can reach, this is ${hostname()}; for workers on ` +
        "several machines take a server that all of them reach: --redis",
    );
  }
  return place && addressOf(place);
}

function addressOf({ port, password }: Place): RedisAddress {
  return redisAddress(`redis://:${password}@127.0.0.1:${port}`);
}

function placeOf(folder: string): Place | undefined {
  const file = join(folder, ADDRESS_FILE);
  if (!existsSync(file)) return undefined;
  try {
    const { host, port, password } = JSON.parse(readFileSync(file, "utf8")) as Place;
    if (typeof host === "string" && Number.isInteger(port) && /^\w+$/.test(password))
      return { host, port, password };
  } catch {
    // It says nothing that can be used.
  }
  throw new FileError(
    `${file} is damaged: expected host, port and password of a server; delete it for a new one`,
  );
}

/** The place that a folder says, if it is one of this machine; else a new one. */
async function placeHere(folder: string): Promise<Place> {
  const before = placeOf(folder);
  if (before?.host === hostname()) return before;
  const place = { host: hostname(), port: await freePort(), password: randomBytes(32).toString("hex") };
  const file = join(folder, ADDRESS_FILE);
  await writeWhole(file, `${JSON.stringify(place)}\n`);
  chmodSync(file, 0o600);
  return place;
}

/** Settings as of redis.conf. Passwords in arguments could be read by everybody on the machine. */
function configOf({ port, password }: Place, folder: string, persist: boolean): string {
  return [
    "bind 127.0.0.1",
    `port ${port}`,
    "protected-mode yes",
    `requirepass ${password}`,
    `dir ${quoted(folder)}`,
    // Jobs must not be dropped for want of memory.
    "maxmemory-policy noeviction",
    `appendonly ${persist ? "yes" : "no"}`,
    'save ""',
    "daemonize no",
    "",
  ].join("\n");
}

/** A string of redis.conf. */
function quoted(text: string): string {
  return `"${text.replaceAll(/["\\]/g, "\\$&")}"`;
}

async function answers({ options }: RedisAddress): Promise<void> {
  const { Redis } = await import("ioredis");
  const end = performance.now() + START_SECONDS * 1000;
  for (;;) {
    const client = new Redis({ ...options, lazyConnect: true, retryStrategy: () => null });
    client.on("error", () => {});
    try {
      await client.connect();
      // It answers with an error while it reads its log.
      await client.ping();
      return;
    } catch (cause) {
      if (performance.now() > end)
        throw new XpatchError(`the queue's server does not answer: ${(cause as Error).message}`, { cause });
    } finally {
      client.disconnect();
    }
    await new Promise((settle) => setTimeout(settle, 50));
  }
}

function freePort(): Promise<number> {
  return new Promise((settle, fail) => {
    const server = createServer();
    server.on("error", fail);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address() as { port: number };
      server.close(() => settle(port));
    });
  });
}

function isFree(port: number): Promise<boolean> {
  return new Promise((settle) => {
    const server = createServer();
    server.on("error", () => settle(false));
    server.listen(port, "127.0.0.1", () => server.close(() => settle(true)));
  });
}

function lastLines(said: string): string {
  return said.trim().split("\n").slice(-3).join(" / ") || "it said nothing";
}
