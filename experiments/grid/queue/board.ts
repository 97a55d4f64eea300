import type { Redis } from "ioredis";
import { XpatchError } from "xpatch";
import type { QueueLimits } from "./limits.ts";

/** Before all keys of ours in a server. */
export const PREFIX = "xpatch";

/** How long it is remembered that a grid is done, for workers that are looking elsewhere just now. In seconds. */
const REMEMBER_DONE = 24 * 3600;
/** How long somebody who fills the queue may say nothing before it counts as gone. In seconds. */
const FILLER_SECONDS = 30;

/** A grid as its workers hear of it: names and paths, from which each reads the rest itself. */
export interface PostedGrid {
  readonly id: string;
  /** The folder of its store. */
  readonly folder: string;
  /** Hash of its plan. */
  readonly hash: string;
  readonly runs: readonly { readonly id: string; readonly label: string }[];
  readonly limits: QueueLimits;
  readonly state: "open" | "done";
}

/** The queue of a run: of the cells that one loaded model computes. */
export function queueName(grid: string, run: string): string {
  return `grid-${grid}-${run}`;
}

/** Where a server keeps which grids there are. */
export class Board {
  readonly #redis: Redis;

  constructor(redis: Redis) {
    this.#redis = redis;
  }

  async post(grid: PostedGrid): Promise<void> {
    const text = JSON.stringify(grid);
    if (grid.state === "done") {
      await this.#redis.set(this.#key(grid.id), text, "EX", REMEMBER_DONE);
      await this.#redis.srem(`${PREFIX}:grids`, grid.id);
    } else {
      await this.#redis.set(this.#key(grid.id), text);
      await this.#redis.sadd(`${PREFIX}:grids`, grid.id);
    }
  }

  /** The grids that are open. */
  async open(): Promise<PostedGrid[]> {
    const ids = await this.#redis.smembers(`${PREFIX}:grids`);
    const found = await Promise.all(ids.sort().map((id) => this.get(id)));
    return found.filter((grid) => grid?.state === "open") as PostedGrid[];
  }

  /** Throws XpatchError where the server holds something else under that name. */
  async get(id: string): Promise<PostedGrid | undefined> {
    const text = await this.#redis.get(this.#key(id));
    return text === null ? undefined : read(text);
  }

  /** Says that somebody fills the queue; to be said again before {@link FILLER_SECONDS} have passed. */
  async fill(id: string): Promise<void> {
    await this.#redis.set(`${this.#key(id)}:filled`, "1", "EX", FILLER_SECONDS);
  }

  /** Says that this one does so no longer. Others that do say so again. */
  async leave(id: string): Promise<void> {
    await this.#redis.del(`${this.#key(id)}:filled`);
  }

  async isFilled(id: string): Promise<boolean> {
    return (await this.#redis.exists(`${this.#key(id)}:filled`)) === 1;
  }

  #key(id: string): string {
    return `${PREFIX}:grid:${id}`;
  }
}

function read(text: string): PostedGrid {
  try {
    const grid = JSON.parse(text) as PostedGrid;
    const { id, folder, hash, runs, limits, state } = grid;
    const texts = [id, folder, hash, state, ...runs.flatMap((run) => [run.id, run.label])];
    if (texts.every((each) => typeof each === "string") && typeof limits.lock === "number") return grid;
  } catch {
    // As below.
  }
  throw new XpatchError(
    `the server holds something else than a grid of xpatch under ${PREFIX}:grid:…; is it one of another version?`,
  );
}
