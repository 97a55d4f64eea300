import { mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { FileError } from "xpatch";
import { keep, removeIfEmpty, removeOnExit } from "#src/platform/node-exit";
import { showSystemError } from "#src/platform/node-write";
import { isRunning, processSpace, processStart } from "./process-identity.ts";

/** Who holds a lock, as its file says. */
interface Holder {
  readonly pid: number;
  readonly host: string;
  /** Tells containers of one host apart, whose process ids mean different processes. */
  readonly space?: string;
  /** Tells a process from a later one with the same id. */
  readonly start?: string;
  readonly since: string;
}

/** A lock file without a holder in it is being written, unless it is older than this. */
const WRITING_SECONDS = 5;

/**
 * The right to write into a folder of results, held by one process at a time: a file `lock` that says by which. That of a
 * process that was killed is taken over; whether one on another machine still runs cannot be known, so that is believed.
 */
export class FolderLock {
  readonly folder: string;
  readonly #text: string;
  readonly #created: boolean;

  private constructor(folder: string, text: string, created: boolean) {
    this.folder = folder;
    this.#text = text;
    this.#created = created;
  }

  /** Makes the folder if there is none. Throws FileError naming the process that holds it. */
  static take(folder: string): FolderLock {
    const path = lockPath(folder);
    const start = processStart(process.pid);
    const space = processSpace();
    const own: Holder = {
      pid: process.pid,
      host: hostname(),
      ...(space !== undefined && { space }),
      ...(start !== undefined && { start }),
      since: new Date().toISOString(),
    };
    const text = `${JSON.stringify(own)}\n`;
    const created = orRefuse(folder, () => mkdirSync(folder, { recursive: true })) !== undefined;
    for (;;) {
      if (create(folder, path, text)) {
        removeOnExit(path, created ? folder : undefined);
        return new FolderLock(folder, text, created);
      }
      const found = read(path);
      if (found === undefined) continue; // It has just been given back.
      const holder = parse(found);
      if (holder ? isHeld(holder) : isYoung(path)) throw new FileError(heldBy(folder, holder));
      remove(path, found);
    }
  }

  /** Throws FileError if the folder is another's by now, or its lock was deleted: two would write into one run. */
  check(): void {
    if (read(lockPath(this.folder)) === this.#text) return;
    keep(lockPath(this.folder));
    throw new FileError(`${lockPath(this.folder)} is no longer this process's; stopped before writing more`);
  }

  /** Gives the folder free, and removes it if it was made for nothing. */
  [Symbol.dispose](): void {
    const path = lockPath(this.folder);
    keep(path);
    if (read(path) !== this.#text) return;
    rmSync(path, { force: true });
    if (this.#created) removeIfEmpty(this.folder);
  }
}

function lockPath(folder: string): string {
  return join(folder, "lock");
}

/** Creates the lock file; false where there is one. */
function create(folder: string, path: string, text: string): boolean {
  return orRefuse(folder, () => {
    try {
      writeFileSync(path, text, { flag: "wx" });
      return true;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
      throw error;
    }
  });
}

/**
 * Removes a lock file that says `text`. Another process may be taking over the same one: what is moved aside is looked at
 * again, and put back if it is a new one. Should a third come first, the holder of that one stops at its next `check`.
 */
function remove(path: string, text: string): void {
  const aside = `${path}.${process.pid}-stale`;
  try {
    renameSync(path, aside);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return;
    throw error;
  }
  const moved = read(aside);
  if (moved !== undefined && moved !== text) {
    try {
      writeFileSync(path, moved, { flag: "wx" });
    } catch {
      // A third came first.
    }
  }
  rmSync(aside, { force: true });
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}

function parse(text: string): Holder | undefined {
  try {
    const json = JSON.parse(text) as Holder;
    return typeof json.pid === "number" && typeof json.host === "string" ? json : undefined;
  } catch {
    return undefined;
  }
}

function isHeld({ pid, host, space, start }: Holder): boolean {
  const here = host === hostname() && space === processSpace();
  return !here || isRunning(pid, start);
}

function isYoung(path: string): boolean {
  const changed = statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0;
  return Date.now() - changed < WRITING_SECONDS * 1000;
}

function heldBy(folder: string, holder: Holder | undefined): string {
  const elsewhere = holder && (holder.host !== hostname() || holder.space !== processSpace());
  const who = holder
    ? `process ${holder.pid} on ${holder.host}, since ${holder.since}`
    : "a process that starts";
  const remedy = elsewhere ? `; if that process has ended, delete ${lockPath(folder)}` : "";
  return `${folder}: another command is writing here (${who}); wait for it, or take another folder${remedy}`;
}

function orRefuse<T>(folder: string, act: () => T): T {
  try {
    return act();
  } catch (cause) {
    const reason = showSystemError(cause as NodeJS.ErrnoException);
    throw new FileError(`cannot write the folder ${folder}: ${reason}`, { cause });
  }
}
