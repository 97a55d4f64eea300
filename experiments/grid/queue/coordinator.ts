import { createHash } from "node:crypto";
import { type Job, Queue, Worker } from "bullmq";
import type { Redis } from "ioredis";
import { XpatchError } from "xpatch";
import { accuracyOf } from "./accuracy.ts";
import { Board, type PostedGrid, PREFIX, queueName } from "./board.ts";
import { QUEUE_LIMITS, type QueueLimits } from "./limits.ts";
import type { GivenUp, GridProgress, RunCounts } from "./progress.ts";
import { Rate } from "./rate.ts";
import { countWorkers, WATCHER } from "./workers.ts";

/** What a queue has to know of a grid's store: which cells there are, and which are finished. A `GridStore` has it. */
export interface CellStore {
  readonly runs: readonly StoredRun[];
  cellsOf(run: string): readonly StoredCell[];
  /** Sees what other processes have finished since. */
  refresh(): void;
  /** A refusal is as final as a result. */
  state(cell: string): "finished" | "refused" | "failed" | "missing";
  record(cell: string): { readonly result: unknown } | undefined;
}

interface StoredRun {
  readonly id: string;
  readonly label: string;
}

interface StoredCell {
  readonly name: string;
  readonly key: string;
}

export interface CoordinatorOptions {
  readonly redis: Redis;
  /** Of the grid in this server: whoever fills the queue of the same store takes the same. */
  readonly id: string;
  /** The folder of the store. */
  readonly folder: string;
  readonly store: CellStore;
  readonly limits?: QueueLimits;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: GridProgress, givenUp: readonly GivenUp[], isOver: boolean) => void;
  readonly note?: (text: string) => void;
}

export interface GridOutcome {
  /** Whether every cell is finished or given up. */
  readonly isOver: boolean;
  readonly progress: GridProgress;
  readonly givenUp: readonly GivenUp[];
}

/** How often workers are counted: the server lists all its connections for it. */
const COUNT_WORKERS_MS = 5000;
/** How long results are read at a time, and when there are no more to come. */
const READ_MS = 50;
const LAST_READ_MS = 2000;
/** Dead letters that are read at a time. */
const PAGE = 200;

/**
 * Fills the queues of a grid until its store has every cell, or has them but for those that were given up. What is finished is
 * counted in the store alone: an event may be lost, or come twice. Several may do this for one grid, as jobs are called by their
 * cells, and what is queued already is not queued again.
 */
export async function coordinate(options: CoordinatorOptions): Promise<GridOutcome> {
  const {
    redis,
    id,
    folder,
    store,
    limits = QUEUE_LIMITS,
    signal,
    onProgress = () => {},
    note = () => {},
  } = options;
  const runs = store.runs.map((run) => new QueuedRun(redis, id, run, store, limits, note));
  const board = new Board(redis);
  const posted: Omit<PostedGrid, "state"> = {
    id,
    folder,
    hash: hashOf(store),
    runs: store.runs.map(({ id: run, label }) => ({ id: run, label })),
    limits,
  };
  const begin = performance.now();
  try {
    const before = await board.get(id);
    if (before && before.hash !== posted.hash)
      throw new XpatchError(
        `the queue holds another plan for ${folder}: its hash is ${before.hash}, expected ${posted.hash}`,
      );
    const isFirst = !(await board.isFilled(id));
    await board.fill(id);
    await board.post({ ...posted, state: "open" });
    // What an earlier one gave up is tried anew; what another one that still runs gave up is not.
    if (isFirst) for (const run of runs) await run.forgetGivenUp();
    let workers: number | undefined;
    let countedAt = Number.NEGATIVE_INFINITY;
    for (;;) {
      const since = performance.now();
      await board.fill(id);
      // A server that was restarted may have forgotten it.
      if (!(await board.get(id))) await board.post({ ...posted, state: "open" });
      store.refresh();
      for (const run of runs) await run.step(givenUp(runs).length < limits.givenUp);
      if (since > countedAt + COUNT_WORKERS_MS) {
        workers = await countWorkers(redis, id, store.runs);
        countedAt = since;
      }
      const progress = { runs: runs.map((run) => run.counts), workers, seconds: (since - begin) / 1000 };
      const isOver = runs.every((run) => run.isOver(givenUp(runs).length < limits.givenUp));
      onProgress(progress, givenUp(runs), isOver);
      if (isOver || signal?.aborted) {
        if (isOver) {
          await board.post({ ...posted, state: "done" });
          await workersLeave(redis, id, store, limits);
          for (const run of runs) if (run.givenUp.length === 0) await run.forget();
        }
        await board.leave(id);
        return { isOver, progress, givenUp: givenUp(runs) };
      }
      // A store of many files takes long to look at.
      await pause(Math.max(limits.tick, 5 * (performance.now() - since)), signal);
    }
  } finally {
    await Promise.all(runs.map((run) => run.close()));
  }
}

/** Waits for workers to see that there is nothing more to do: a server of the grid's own ends with it. */
async function workersLeave(
  redis: Redis,
  id: string,
  { runs }: CellStore,
  { patience }: QueueLimits,
): Promise<void> {
  const end = performance.now() + 2 * patience + COUNT_WORKERS_MS;
  while (performance.now() < end && (await countWorkers(redis, id, runs)) !== 0) await pause(100, undefined);
}

/** Of the plan: runs are called by what their numbers depend on. */
function hashOf({ runs }: CellStore): string {
  return createHash("sha256")
    .update(JSON.stringify(runs.map(({ id, label }) => [id, label])))
    .digest("hex")
    .slice(0, 16);
}

function givenUp(runs: readonly QueuedRun[]): GivenUp[] {
  return runs.flatMap((run) => run.givenUp);
}

/** The cells of a run on their way: not queued yet, queued, finished or given up. */
class QueuedRun {
  readonly #label: string;
  readonly #cells: readonly StoredCell[];
  readonly #store: CellStore;
  readonly #limits: QueueLimits;
  readonly #note: (text: string) => void;
  readonly #queue: Queue;
  /** Looks for cells whose workers have gone, also while no worker has this queue open. */
  readonly #watch: Worker;
  /** Of the run's cells, those before it were finished when it came by, or queued. */
  #next = 0;
  readonly #queued = new Set<string>();
  readonly #givenUp = new Map<string, GivenUp>();
  readonly #rate = new Rate();
  readonly #accuracies = { sum: 0, count: 0 };
  /** Finished cells whose accuracies are not in yet. */
  readonly #unread: string[] = [];
  #keys: ReadonlyMap<string, string> | undefined;
  #finished = 0;
  #active = 0;
  #emptySince: number | undefined;

  constructor(
    redis: Redis,
    grid: string,
    run: StoredRun,
    store: CellStore,
    limits: QueueLimits,
    note: (text: string) => void,
  ) {
    this.#label = run.label;
    this.#cells = store.cellsOf(run.id);
    this.#store = store;
    this.#limits = limits;
    this.#note = note;
    const name = queueName(grid, run.id);
    this.#queue = new Queue(name, {
      connection: redis,
      prefix: PREFIX,
      streams: { events: { maxLen: 100 } }, // nobody reads them
    });
    this.#watch = new Worker(name, null, {
      connection: redis,
      prefix: PREFIX,
      name: WATCHER,
      autorun: false,
      stalledInterval: limits.stalled,
      maxStalledCount: limits.stalls,
      lockDuration: limits.lock,
      skipLockRenewal: true,
    });
    // Connections come back; what else goes wrong is thrown where it is asked for.
    this.#queue.on("error", () => {});
    this.#watch.on("error", () => {});
    void this.#watch.startStalledCheckTimer().catch(() => {});
  }

  get givenUp(): GivenUp[] {
    return [...this.#givenUp.values()];
  }

  get counts(): RunCounts {
    const cells = this.#cells;
    const { sum, count } = this.#accuracies;
    const computing = Math.min(this.#active, this.#queued.size);
    const left = cells.length - this.#finished - this.#givenUp.size;
    const perSecond = this.#rate.perSecond;
    return {
      label: this.#label,
      cells: cells.length,
      finished: this.#finished,
      givenUp: this.#givenUp.size,
      computing,
      waiting: Math.max(0, left - computing),
      perSecond,
      secondsLeft: left === 0 ? 0 : perSecond > 0 ? left / perSecond : undefined,
      ...(count > 0 && { accuracy: sum / count }),
    };
  }

  /** @param more - Whether what is not queued yet is to come. */
  isOver(more: boolean): boolean {
    return this.#queued.size === 0 && (!more || this.#next === this.#cells.length);
  }

  /** Sees what is finished or given up, and queues what there is room for, if `more` is to be computed. */
  async step(more: boolean): Promise<void> {
    const counts = await this.#queue.getJobCounts("waiting", "active", "failed");
    const { waiting = 0, active = 0, failed = 0 } = counts;
    this.#active = active;
    // One that was given up may be finished all the same: by a worker that was thought dead.
    const finished = [...this.#queued, ...this.#givenUp.keys()].filter((cell) => this.#isFinished(cell));
    for (const cell of finished) this.#finish(cell);
    this.#rate.add(finished.length);
    if (failed > this.#givenUp.size) await this.#readGivenUp(failed);
    if (more) await this.#fill();
    await this.#queueLost(waiting + active === 0);
    this.#readAccuracies(this.isOver(more) ? LAST_READ_MS : READ_MS);
  }

  /** Takes what was given up before off the queue, so that it is tried anew. */
  async forgetGivenUp(): Promise<void> {
    for (;;) {
      const jobs = await this.#queue.getFailed(0, PAGE - 1);
      if (jobs.length === 0) return;
      await Promise.all(jobs.map((job) => job.remove()));
    }
  }

  /** Forgets the queue, of which nothing is left to be known. */
  async forget(): Promise<void> {
    await this.#queue.obliterate({ force: true });
  }

  async close(): Promise<void> {
    await Promise.all(
      [this.#watch.close(true), this.#queue.close()].map((closing) => closing.catch(() => {})),
    );
  }

  async #fill(): Promise<void> {
    const cells = this.#cells;
    const names: string[] = [];
    for (
      ;
      this.#next < cells.length && this.#queued.size + names.length < this.#limits.queued;
      this.#next++
    ) {
      const { name } = cells[this.#next]!;
      if (this.#isFinished(name)) this.#finish(name);
      else names.push(name);
    }
    await this.#add(names);
  }

  async #add(names: readonly string[]): Promise<void> {
    if (names.length === 0) return;
    const opts = {
      attempts: this.#limits.attempts,
      // The store says what is finished.
      removeOnComplete: true,
      removeOnFail: false,
      stackTraceLimit: 20,
    };
    await this.#queue.addBulk(
      names.map((name) => ({ name: "cell", data: {}, opts: { ...opts, jobId: name } })),
    );
    for (const name of names) this.#queued.add(name);
  }

  /** Queues again what is neither in the queue nor finished: of a server that forgot something when it was restarted. */
  async #queueLost(isEmpty: boolean): Promise<void> {
    if (!isEmpty || this.#queued.size === 0) {
      this.#emptySince = undefined;
      return;
    }
    this.#emptySince ??= performance.now();
    if (performance.now() - this.#emptySince < this.#limits.lost) return;
    this.#note(
      `${this.#label}: ${this.#queued.size} cells are neither queued nor finished; queueing them again`,
    );
    await this.#add([...this.#queued]);
    this.#emptySince = undefined;
  }

  #isFinished(cell: string): boolean {
    return ["finished", "refused"].includes(this.#store.state(cell));
  }

  #finish(cell: string): void {
    this.#queued.delete(cell);
    this.#givenUp.delete(cell);
    this.#finished++;
    this.#unread.push(cell);
  }

  /** Reads results, each of which is somewhere in some file, for so many milliseconds: of a grid that goes on there may be a million. */
  #readAccuracies(ms: number): void {
    for (const end = performance.now() + ms; this.#unread.length > 0 && performance.now() < end; ) {
      const accuracy = accuracyOf(this.#store.record(this.#unread.pop()!)?.result);
      if (accuracy === undefined) continue;
      this.#accuracies.sum += accuracy;
      this.#accuracies.count++;
    }
  }

  async #readGivenUp(count: number): Promise<void> {
    this.#keys ??= new Map(this.#cells.map(({ name, key }) => [name, key]));
    const keys = this.#keys;
    for (let at = 0; at < count; at += PAGE) {
      const jobs = (await this.#queue.getFailed(at, at + PAGE - 1)) as Job[];
      for (const { id, failedReason, stacktrace, attemptsMade } of jobs) {
        if (this.#givenUp.has(id!) || !keys.has(id!) || this.#isFinished(id!)) continue;
        this.#queued.delete(id!);
        const key = keys.get(id!)!;
        const stack = stacktrace?.at(-1) ?? failedReason;
        this.#givenUp.set(id!, {
          run: this.#label,
          cell: id!,
          key,
          attempts: attemptsMade,
          error: failedReason,
          stack,
        });
      }
    }
  }
}

function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((settle) => {
    const end = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", end);
      settle();
    };
    const timer = setTimeout(end, ms);
    if (signal?.aborted) end();
    signal?.addEventListener("abort", end);
  });
}
