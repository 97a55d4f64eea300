import { randomBytes } from "node:crypto";
import { hostname } from "node:os";
import { QueueKeys } from "bullmq";
import type { Redis } from "ioredis";
import { XpatchError } from "xpatch";
import { Board, type PostedGrid, PREFIX, queueName } from "./board.ts";
import { CellCrash, CellProcess, type CellProgram } from "./cell-process.ts";
import { CellSource, type TakenCell } from "./cell-source.ts";
import { connect } from "./connection.ts";
import type { HeldJob } from "./held-job.ts";
import type { RedisAddress } from "./redis-address.ts";

export interface WorkOptions {
  readonly redis: RedisAddress;
  /** The grid to work on. Default: the only one that the server has, or the first that comes. */
  readonly grid?: string | undefined;
  /** What computes cells of the store in a folder; `posted` is what whoever fills the queue calls that folder. */
  readonly program: (posted: PostedGrid) => CellProgram;
  /** Processes, each with a model of its own. Default 1. */
  readonly concurrency?: number;
  /** Ends the work: cells that are being computed go back. */
  readonly signal?: AbortSignal;
  /** Seconds to wait for a server, for a grid, and for whoever fills its queue. Default 600. */
  readonly wait?: number;
  readonly note?: (text: string) => void;
}

export interface WorkDone {
  readonly computed: number;
  /** Times that a cell failed here. */
  readonly failed: number;
  readonly because: "the grid is done" | "stopped";
}

/** How often somebody who has nothing to do looks again. */
const IDLE_MS = 500;
/** How long a grid has to be done before a worker that has just come believes it. */
const DONE_MS = 5000;
/** Answers that make no sense, one after the other, before the work ends. */
const MOST_FAILURES = 6;
/** Cells that may end their processes one after the other before the machine is suspected. */
const MOST_CRASHES = 5;
/** How long cells may take to go back when the work is stopped. */
const STOP_MS = 5000;

/**
 * Computes cells of a grid until it is done or the work is stopped. Throws XpatchError where there is no server, no grid, or nobody
 * who fills its queue in time.
 */
export async function work(options: WorkOptions): Promise<WorkDone> {
  const { redis: address, note = () => {}, concurrency = 1, wait = 600 } = options;
  const stop = new AbortController();
  const signal = options.signal ? AbortSignal.any([options.signal, stop.signal]) : stop.signal;
  const redis = await connect(address, wait);
  let isGone = false;
  redis.on("ready", () => {
    if (isGone) note(`the queue at ${address.shown} answers again`);
    isGone = false;
  });
  // Each try to come back ends with it, too.
  redis.on("close", () => {
    if (!isGone && !signal.aborted) note(`the queue at ${address.shown} does not answer; waiting for it`);
    isGone = true;
  });
  try {
    const grid = await findGrid(new Board(redis), options, signal);
    if (typeof grid === "string") return { computed: 0, failed: 0, because: grid };
    note(`working on ${grid.folder}`);
    const shared: Shared = { redis, grid, note, wait, count: { computed: 0, failed: 0 } };
    const name = `${hostname()}-${randomBytes(3).toString("hex")}`;
    const slots = Array.from(
      { length: concurrency },
      (_, i) => new Slot(shared, options.program(grid), concurrency > 1 ? `${name}-${i}` : name, signal),
    );
    const all = Promise.all(slots.map((slot) => slot.run()));
    try {
      await all;
    } catch (error) {
      stop.abort();
      await Promise.allSettled(slots.map((slot) => slot.ended));
      throw error;
    }
    return { ...shared.count, because: options.signal?.aborted ? "stopped" : "the grid is done" };
  } finally {
    redis.disconnect();
  }
}

async function findGrid(
  board: Board,
  { grid, wait = 600, note = () => {} }: WorkOptions,
  signal: AbortSignal,
): Promise<PostedGrid | WorkDone["because"]> {
  const begin = performance.now();
  let doneSince: number | undefined;
  for (let isTold = false; !signal.aborted; ) {
    const open = (await untilAborted(board.open(), signal)) ?? [];
    if (signal.aborted) break;
    const found = grid === undefined ? open[0] : open.find(({ id }) => id === grid);
    if (grid === undefined && open.length > 1) {
      const folders = open.map(({ folder }) => folder).join(", ");
      throw new XpatchError(
        `the queue has ${open.length} grids (${folders}); name the store of the one to work on`,
      );
    }
    if (found) return found;
    // One that came too late; unless the grid is about to be served again.
    const isDone = grid !== undefined && (await untilAborted(isOver(board, grid), signal));
    doneSince = isDone ? (doneSince ?? performance.now()) : undefined;
    if (doneSince !== undefined && performance.now() - doneSince > DONE_MS) return "the grid is done";
    if (performance.now() - begin > wait * 1000) {
      throw new XpatchError(`the queue had no grid in ${wait} s; "xpatch grid serve" fills it`);
    }
    if (!isTold) note("the queue has no grid yet; waiting for one");
    isTold = true;
    await pause(IDLE_MS, signal);
  }
  return "stopped";
}

async function isOver(board: Board, grid: string): Promise<boolean> {
  return (await board.get(grid))?.state === "done" && !(await board.isFilled(grid));
}

interface Shared {
  readonly redis: Redis;
  readonly grid: PostedGrid;
  readonly note: (text: string) => void;
  readonly wait: number;
  readonly count: { computed: number; failed: number };
}

/** A process that computes cells, and whence it has them: of the model that it has loaded, as long as there are any. */
class Slot {
  readonly #shared: Shared;
  readonly #name: string;
  readonly #process: CellProcess;
  readonly #signal: AbortSignal;
  readonly #pausing = new Set<HeldJob>();
  readonly #closing: Promise<void>[] = [];
  readonly #settling: Promise<void>[] = [];
  /** Cells that have ended their processes, one after the other. */
  readonly #crashed = new Set<string>();
  #source: CellSource | undefined;
  #taking: Promise<TakenCell | undefined> | undefined;
  #idleSince: number | undefined;
  ended: Promise<void> = Promise.resolve();

  constructor(shared: Shared, program: CellProgram, name: string, signal: AbortSignal) {
    this.#shared = shared;
    this.#name = name;
    this.#process = new CellProcess(program);
    this.#signal = signal;
  }

  /** Takes and computes cells until the grid is done, or the signal says so. */
  run(): Promise<void> {
    const work = async () => {
      try {
        await this.#loop();
      } finally {
        await this.#close();
      }
    };
    this.ended = work();
    return this.ended;
  }

  async #loop(): Promise<void> {
    let failures = 0;
    while (!this.#signal.aborted) {
      try {
        this.#taking = this.#take();
        const taken = await untilAborted(this.#taking, this.#signal);
        if (this.#signal.aborted) return;
        this.#taking = undefined;
        failures = 0;
        if (taken) {
          this.#idleSince = undefined;
          await this.#compute(taken);
        } else if (await untilAborted(this.#isDone(), this.#signal)) return;
      } catch (error) {
        // A server that has gone is waited for; this is one that answers with something else.
        if (error instanceof XpatchError || ++failures === MOST_FAILURES) throw error;
        this.#shared.note(`the queue answers with an error: ${(error as Error).message}`);
        await pause(IDLE_MS * 2 ** failures, this.#signal);
      }
    }
  }

  async #take(): Promise<TakenCell | undefined> {
    const own = await this.#source?.take(true);
    if (own || this.#signal.aborted) return own;
    const run = await this.#fullest();
    if (run === undefined) {
      if (!this.#source) await pause(IDLE_MS, this.#signal);
      return undefined;
    }
    if (this.#source?.run !== run) {
      if (this.#source) this.#closing.push(this.#source.close());
      const { redis, grid, note } = this.#shared;
      this.#source = new CellSource(redis, grid, run, this.#name, note);
    }
    return this.#source.take(false);
  }

  /**
   * A run with waiting cells; undefined where there is none. One that has many and few who compute them is likelier, so that workers
   * who look at the same time do not all load the same model.
   */
  async #fullest(): Promise<string | undefined> {
    const { redis, grid } = this.#shared;
    const keys = new QueueKeys(PREFIX);
    const lengths = redis.pipeline();
    for (const { id } of grid.runs)
      for (const list of ["wait", "active"]) lengths.llen(keys.toKey(queueName(grid.id, id), list));
    const found = (await lengths.exec())!.map(([, length]) => Number(length));
    const weights = grid.runs.map((_, i) => found[2 * i]! / (1 + found[2 * i + 1]!));
    let at = Math.random() * weights.reduce((sum, weight) => sum + weight, 0);
    return grid.runs.find((_, i) => {
      at -= weights[i]!;
      return weights[i]! > 0 && at <= 0;
    })?.id;
  }

  async #compute({ job, refused }: TakenCell): Promise<void> {
    const { count, note } = this.#shared;
    const source = this.#source!;
    if (refused !== undefined) return this.#settle(job.giveUp(refused));
    try {
      const outcome = await untilAborted(this.#process.compute(job.cell), this.#signal);
      if (!outcome) {
        await this.#process.stop();
        return await this.#settle(job.giveBack());
      }
      if (outcome.state !== "failed") {
        this.#crashed.clear();
        if (outcome.state !== "already") count.computed++;
        return await this.#settle(job.finish(outcome.state));
      }
      this.#crashed.clear();
      this.#fail(source, job, errorOf(outcome.error ?? "it does not say why"));
    } catch (error) {
      if (!(error instanceof CellCrash)) {
        // No fault of the cell's.
        await this.#settle(job.giveBack());
        throw error;
      }
      this.#fail(source, job, error);
      this.#crashed.add(job.cell);
      if (this.#crashed.size === MOST_CRASHES) {
        throw new XpatchError(
          `${MOST_CRASHES} cells one after the other have ended the process that computed them; on this machine none may be computed. The last: ${error.message}`,
        );
      }
    }
    count.failed++;
    note(`${job.cell} failed`);
  }

  /** Waits until the queue has heard of it, or the work is stopped: then it has a little more time. */
  async #settle(settling: Promise<void>): Promise<void> {
    this.#settling.push(settling);
    await untilAborted(settling, this.#signal);
    if (!this.#signal.aborted) this.#settling.pop();
  }

  /** Others go on while a cell that failed waits for its next attempt. */
  #fail(source: CellSource, job: HeldJob, error: Error): void {
    this.#pausing.add(job);
    source.hold(job.fail(error).finally(() => this.#pausing.delete(job)));
  }

  /** Whether there is nothing more to do. Throws XpatchError where nobody has filled the queue for too long. */
  async #isDone(): Promise<boolean> {
    const { redis, grid, note, wait } = this.#shared;
    const board = new Board(redis);
    // A server that has forgotten the grid hears of it again from whoever fills the queue.
    if ((await board.get(grid.id))?.state === "done") return true;
    if (await board.isFilled(grid.id)) {
      this.#idleSince = undefined;
    } else if (this.#idleSince === undefined) {
      this.#idleSince = performance.now();
      note('nothing is queued, and nobody fills the queue; waiting for "xpatch grid serve"');
    } else if (performance.now() - this.#idleSince > wait * 1000) {
      throw new XpatchError(
        `nobody has filled the queue of ${grid.folder} for ${wait} s; "xpatch grid serve" does`,
      );
    }
    return false;
  }

  /** Gives back what it holds, as far as the server takes it in time: what it does not comes back when its lock has expired. */
  async #close(): Promise<void> {
    for (const job of this.#pausing) job.hurry();
    const givenBack = Promise.resolve(this.#taking).then(
      (taken) => taken?.job.giveBack(),
      () => {},
    );
    const queues = Promise.all([...this.#closing, ...this.#settling, this.#source?.close(), givenBack]).then(
      () => {},
    );
    await Promise.all([this.#process.stop(), within(STOP_MS, queues)]);
  }
}

/** The result of work, or undefined where the signal comes first. */
function untilAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T | undefined> {
  return new Promise((settle, fail) => {
    const onAbort = () => settle(undefined);
    const end = () => signal.removeEventListener("abort", onAbort);
    if (signal.aborted) onAbort();
    else signal.addEventListener("abort", onAbort);
    work.then(settle, fail).finally(end);
  });
}

/** Resolves when work ends, or has taken that long. */
async function within(ms: number, work: Promise<void>): Promise<void> {
  const over = new AbortController();
  await Promise.race([work, pause(ms, over.signal)]);
  over.abort();
}

function pause(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((settle) => {
    const end = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", end);
      settle();
    };
    const timer = setTimeout(end, ms);
    signal?.addEventListener("abort", end);
  });
}

/** An error with the stack that came as text. */
function errorOf(text: string): Error {
  const error = new Error(text.split("\n")[0]);
  error.stack = text;
  return error;
}
