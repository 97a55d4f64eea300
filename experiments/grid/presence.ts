import { randomBytes } from "node:crypto";
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { keep, removeOnExit } from "#src/platform/node-exit";
import { isRunning, processSpace, processStart } from "../framework/process-identity.ts";

/** How often a worker says that it is there. */
const BEAT_SECONDS = 30;

/** What a worker says of itself. */
export interface WorkerSays {
  readonly id: string;
  readonly host: string;
  readonly pid: number;
  /** Tells containers of one host apart, and a process from a later one with the same id; see FolderLock. */
  readonly space?: string;
  readonly start?: string;
  readonly since: string;
  /** Goes up while it runs. */
  readonly beat: number;
}

/** A file that says that this process is there: its `beat` goes up. */
export class Presence {
  readonly id: string;
  /** What claims are links to. */
  readonly claimFile: string;
  readonly #path: string;
  #says: WorkerSays;
  readonly #timer: NodeJS.Timeout;

  constructor(folder: string, id = workerId()) {
    this.id = id;
    mkdirSync(folder, { recursive: true });
    this.#path = join(folder, `${id}.json`);
    this.claimFile = join(folder, `${id}.claim`);
    const [space, start] = [processSpace(), processStart(process.pid)];
    this.#says = {
      id,
      host: hostname(),
      pid: process.pid,
      ...(space !== undefined && { space }),
      ...(start !== undefined && { start }),
      since: new Date().toISOString(),
      beat: 0,
    };
    for (const path of [this.#path, this.claimFile]) removeOnExit(path);
    writeFileSync(this.claimFile, id);
    this.beat();
    this.#timer = setInterval(() => this.beat(), BEAT_SECONDS * 1000).unref();
  }

  /** Says that the process is there. What goes wrong is left: if it lasts, others take over, and write the same. */
  beat(): void {
    this.#says = { ...this.#says, beat: this.#says.beat + 1 };
    try {
      writeFileSync(`${this.#path}.tmp`, JSON.stringify(this.#says));
      renameSync(`${this.#path}.tmp`, this.#path);
    } catch {
      // The next one may succeed.
    }
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    for (const path of [this.#path, `${this.#path}.tmp`, this.claimFile]) {
      keep(path);
      rmSync(path, { force: true });
    }
  }
}

/** Of no other process ever: `node7-4711-a1b2c3`. */
export function workerId(): string {
  const host = hostname()
    .replaceAll(/[^\w-]/g, "-")
    .slice(0, 32);
  return `${host}-${process.pid}-${randomBytes(4).toString("hex")}`;
}

/** What a worker says of itself; undefined where it says nothing (any more). */
export function readWorker(folder: string, id: string): WorkerSays | undefined {
  try {
    return JSON.parse(readFileSync(join(folder, `${id}.json`), "utf8")) as WorkerSays;
  } catch {
    return undefined;
  }
}

/**
 * Which other workers have stopped. Clocks of two machines are never compared: a worker has stopped when its beat was the
 * same for so long by the clock of the one that looks, or when it was a process of this machine that is gone.
 */
export class Watch {
  readonly #folder: string;
  readonly #staleSeconds: number;
  readonly #now: () => number;
  /** By worker: its beat, and since when it has been that. */
  readonly #seen = new Map<string, { beat: number | undefined; since: number }>();

  /** @param now - Milliseconds that only go up. */
  constructor(folder: string, staleSeconds: number, now: () => number = () => performance.now()) {
    this.#folder = folder;
    this.#staleSeconds = staleSeconds;
    this.#now = now;
  }

  hasStopped(worker: string): boolean {
    const says = readWorker(this.#folder, worker);
    if (says && isGone(says)) return true;
    const seen = this.#seen.get(worker);
    const now = this.#now();
    // A worker without a file has just begun, ended, or is not seen yet over the network; that has to last, too.
    if (seen && seen.beat === says?.beat) return now - seen.since > this.#staleSeconds * 1000;
    this.#seen.set(worker, { beat: says?.beat, since: now });
    return false;
  }
}

/** Whether a worker was a process of this machine that has ended; of those elsewhere that cannot be known. */
export function isGone({ host, space, pid, start }: WorkerSays): boolean {
  const here = host === hostname() && space === processSpace();
  return here && !isRunning(pid, start);
}
