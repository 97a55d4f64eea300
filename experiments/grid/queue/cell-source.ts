import { randomUUID } from "node:crypto";
import { Worker } from "bullmq";
import type { Redis } from "ioredis";
import { type PostedGrid, PREFIX, queueName } from "./board.ts";
import { HeldJob } from "./held-job.ts";

/** A cell that was taken; one that may not be computed any more comes with why. */
export interface TakenCell {
  readonly job: HeldJob;
  readonly refused?: string;
}

/** Where a worker takes the cells of one run from. Looks for cells whose workers have gone, too, as long as it is open. */
export class CellSource {
  readonly run: string;
  readonly #grid: PostedGrid;
  readonly #queue: Worker;
  readonly #held = new Set<Promise<void>>();
  readonly #note: (text: string) => void;
  #isClosed = false;

  constructor(redis: Redis, grid: PostedGrid, run: string, worker: string, note: (text: string) => void) {
    const { limits } = grid;
    this.run = run;
    this.#grid = grid;
    this.#note = note;
    // No processor: cells are taken one by one, from whichever queue is best (BullMQ's "manually fetching jobs").
    this.#queue = new Worker(queueName(grid.id, run), null, {
      connection: redis,
      prefix: PREFIX,
      name: worker,
      autorun: false,
      lockDuration: limits.lock,
      stalledInterval: limits.stalled,
      maxStalledCount: limits.stalls,
      drainDelay: limits.patience / 1000,
      skipLockRenewal: true,
    });
    this.#queue.on("error", () => {}); // Connections come back; what else goes wrong is thrown where it is asked for.
    void this.#queue.startStalledCheckTimer().catch(() => {});
  }

  /** A cell, if there is one. @param wait - Whether to wait for one, for as long as the limits say. */
  async take(wait: boolean): Promise<TakenCell | undefined> {
    const token = randomUUID();
    let job = await this.#queue.getNextJob(token, { block: false });
    // One that waits is woken for cells that others are quicker to take, too.
    const end = performance.now() + this.#grid.limits.patience;
    while (!job && wait && !this.#isClosed && performance.now() < end) {
      job = await this.#queue.getNextJob(token, { block: true });
    }
    if (!job) return undefined;
    const held = new HeldJob(job, token, this.#grid.limits, this.#note);
    return job.deferredFailure
      ? {
          job: held,
          refused: `its workers ended ${job.stalledCounter} times without a word (killed, out of memory, cut off)`,
        }
      : { job: held };
  }

  /** Keeps the source open until `work`, which is about a cell of it, has ended. */
  hold(work: Promise<void>): void {
    const held = work.catch(() => {}).finally(() => this.#held.delete(held));
    this.#held.add(held);
  }

  /** Closes it when nothing is held any more; a `take` that waits then gives nothing. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    await Promise.all(this.#held);
    await this.#queue.close(true).catch(() => {});
  }
}
