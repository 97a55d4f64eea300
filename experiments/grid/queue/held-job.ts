import { type Job, UnrecoverableError } from "bullmq";
import type { QueueLimits } from "./limits.ts";

/**
 * A cell that this process has taken from a queue. The lock is renewed by timers, which go on evenly however the clock jumps
 * (BullMQ's own renewal compares times of day), and expires by the server's clock.
 */
export class HeldJob {
  readonly #job: Job;
  readonly #token: string;
  readonly #limits: QueueLimits;
  readonly #note: (text: string) => void;
  readonly #renewal: NodeJS.Timeout;
  #pause: { readonly timer: NodeJS.Timeout; readonly end: () => void } | undefined;
  #isLost = false;
  #isStopped = false;

  constructor(job: Job, token: string, limits: QueueLimits, note: (text: string) => void) {
    this.#job = job;
    this.#token = token;
    this.#limits = limits;
    this.#note = note;
    // By itself it keeps no process alive.
    this.#renewal = setInterval(() => void this.#renew(), limits.renew).unref();
  }

  get cell(): string {
    return this.#job.id!;
  }

  /** Takes a cell that is finished off the queue. */
  finish(state: string): Promise<void> {
    return this.#settle("finished", () => this.#job.moveToCompleted(state, this.#token, false));
  }

  /** Puts it back, for others, as if it had not been taken. */
  giveBack(): Promise<void> {
    return this.#settle("given back", () => this.#job.moveToWait(this.#token));
  }

  /**
   * Puts it back after a pause, or with those that are given up if this was its last attempt. The lock is held for the pause:
   * BullMQ's delayed jobs wait for a time of day, which another machine may have long passed or never reach.
   */
  async fail(error: Error): Promise<void> {
    const { attemptsMade, opts } = this.#job;
    if (attemptsMade + 1 < (opts.attempts ?? 1)) await this.#wait(this.#limits.backoff * 2 ** attemptsMade);
    await this.#settle("failed", () => this.#job.moveToFailed(error, this.#token, false));
  }

  /** Puts it with those that are given up at once. */
  giveUp(why: string): Promise<void> {
    return this.#settle("given up", () =>
      this.#job.moveToFailed(new UnrecoverableError(why), this.#token, false),
    );
  }

  /** Ends the pause after a failure. */
  hurry(): void {
    this.#isStopped = true;
    this.#pause?.end();
  }

  #wait(ms: number): Promise<void> {
    if (this.#isStopped) return Promise.resolve();
    return new Promise((settle) => {
      const end = () => {
        clearTimeout(this.#pause?.timer);
        settle();
      };
      this.#pause = { timer: setTimeout(end, ms), end };
    });
  }

  async #settle(what: string, move: () => Promise<unknown>): Promise<void> {
    try {
      await move();
    } catch (error) {
      // The store has the cell if it was finished; somebody else has the lock, and will see that.
      this.#note(`the queue does not take it that ${this.cell} is ${what}: ${(error as Error).message}`);
    } finally {
      clearInterval(this.#renewal);
    }
  }

  async #renew(): Promise<void> {
    const kept = await this.#job.extendLock(this.#token, this.#limits.lock).catch(() => 1);
    if (kept || this.#isLost) return;
    this.#isLost = true;
    this.#note(
      `${this.cell} was taken from this worker, which said nothing for too long; it is computed to its end all the same`,
    );
  }
}
