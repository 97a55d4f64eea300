import { linkSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { FileError } from "xpatch";
import { keep, removeOnExit } from "#src/platform/node-exit";
import { showSystemError } from "#src/platform/node-write";
import type { Presence, Watch } from "./presence.ts";

/** Errors of file systems without hard links, where creating a file exclusively has to do. */
const NO_LINKS = ["EPERM", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EMLINK", "EXDEV"];

/** Workers that took a cell over from each other; more are no accident. */
const MOST_GENERATIONS = 1000;

/**
 * Who computes which cell: a file `<cell>.1` that names the worker, made by a link, which is atomic on shared file systems
 * too. A worker that finds the owner of `<cell>.1` stopped makes `<cell>.2`, which only one of several can; the claim with
 * the highest number counts. Nothing is renamed, and nothing removed but by its owner or by who has the cell after it, so that
 * two cannot take over the same claim. Claims spare work and are not what results rest on: who lost one writes the same bytes.
 */
export class Claims {
  readonly #folder: string;
  readonly #presence: Presence;
  readonly #watch: Watch;

  constructor(folder: string, presence: Presence, watch: Watch) {
    this.#folder = folder;
    this.#presence = presence;
    this.#watch = watch;
    mkdirSync(folder, { recursive: true });
  }

  /** The right to compute a cell; undefined while another worker has it. */
  take(id: string): Claim | undefined {
    let below: string | undefined;
    for (let generation = 1; generation <= MOST_GENERATIONS; generation++) {
      const path = join(this.#folder, `${id}.${generation}`);
      if (this.#create(path)) {
        const claim = new Claim(path, generation, this.#presence.id);
        const under = join(this.#folder, `${id}.${generation - 1}`);
        // The owner that was found stopped may have been another one's predecessor: then the one that is there now has it.
        if (generation === 1 || ownerOf(under) === below) return claim;
        claim.withdraw();
        return undefined;
      }
      const owner = ownerOf(path);
      const next = join(this.#folder, `${id}.${generation + 1}`);
      if (ownerOf(next) === undefined && (owner === undefined || !this.#watch.hasStopped(owner)))
        return undefined;
      below = owner;
    }
    return undefined;
  }

  #create(path: string): boolean {
    try {
      linkSync(this.#presence.claimFile, path);
      return true;
    } catch (error) {
      const { code = "" } = error as NodeJS.ErrnoException;
      // A server that answers twice has made the link the first time.
      if (code === "EEXIST") return ownerOf(path) === this.#presence.id;
      if (!NO_LINKS.includes(code)) refuse(path, error);
    }
    try {
      writeFileSync(path, this.#presence.id, { flag: "wx" });
      return true;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
      return refuse(path, error);
    }
  }
}

/** The right to compute a cell, until it is released or the process ends. */
export class Claim {
  readonly #path: string;
  readonly #generation: number;
  readonly #worker: string;

  constructor(path: string, generation: number, worker: string) {
    this.#path = path;
    this.#generation = generation;
    this.#worker = worker;
    removeOnExit(path);
  }

  /** Gives it up, and with it what is left of the workers that it was taken over from. */
  release(): void {
    const stem = this.#path.slice(0, this.#path.lastIndexOf("."));
    for (let generation = 1; generation < this.#generation; generation++) {
      rmSync(`${stem}.${generation}`, { force: true });
    }
    this.withdraw();
  }

  /** Gives it up alone: those below may be claims that count. */
  withdraw(): void {
    keep(this.#path);
    if (ownerOf(this.#path) === this.#worker) rmSync(this.#path, { force: true });
  }
}

/** The worker that a claim names; undefined where there is none, or where it is being written. */
function ownerOf(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8") || undefined;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}

function refuse(path: string, cause: unknown): never {
  throw new FileError(`cannot write ${path}: ${showSystemError(cause as NodeJS.ErrnoException)}`, { cause });
}
