import type { AbortSignal } from "../../platform/global-types.ts";

/** A piece of work that waits for its turn. */
interface Waiting {
  readonly start: () => Promise<unknown>;
  readonly onPlace: ((ahead: number) => void) | undefined;
}

/**
 * One piece of work at a time: those of each owner in order, owners in turn. Who asks for much waits for themselves, not others for
 * them.
 */
export class FairQueue<Owner> {
  /** In the order of their turns. */
  readonly #waiting = new Map<Owner, Waiting[]>();
  #busy = false;

  /** How many wait. */
  get length(): number {
    return [...this.#waiting.values()].reduce((sum, { length }) => sum + length, 0);
  }

  /**
   * Settles as `work` does. Rejects with the signal's reason where that comes before its turn.
   *
   * @param onPlace told how many are to be done before it, each time that changes; not where it is done at once
   */
  add<T>(
    owner: Owner,
    work: () => Promise<T>,
    { signal, onPlace }: { signal: AbortSignal; onPlace?: (ahead: number) => void },
  ): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      if (signal.aborted) throw signal.reason;
      const give = () => {
        const own = this.#waiting.get(owner);
        const at = own?.indexOf(waiting) ?? -1;
        if (at < 0) return;
        own!.splice(at, 1);
        if (own!.length === 0) this.#waiting.delete(owner);
        reject(signal.reason);
        this.#tell();
      };
      const start = () => {
        signal.removeEventListener("abort", give);
        const done = work();
        done.then(resolve, reject);
        return done;
      };
      const waiting: Waiting = { start, onPlace };
      signal.addEventListener("abort", give, { once: true });
      const own = this.#waiting.get(owner) ?? [];
      own.push(waiting);
      this.#waiting.set(owner, own);
      if (this.#busy) this.#tell();
      else void this.#run();
    });
  }

  async #run(): Promise<void> {
    this.#busy = true;
    for (let next = this.#next(); next; next = this.#next()) {
      this.#tell();
      await next.start().catch(() => {}); // told to whoever asked for it
    }
    this.#busy = false;
  }

  #next(): Waiting | undefined {
    for (const [owner, own] of this.#waiting) {
      // Behind all others, if there is more.
      this.#waiting.delete(owner);
      const first = own.shift();
      if (own.length > 0) this.#waiting.set(owner, own);
      return first;
    }
    return undefined;
  }

  /** Tells all that wait how many are before them, with the one at work. */
  #tell(): void {
    let ahead = 0;
    for (const { onPlace } of this.#inTurn()) {
      ahead += 1;
      onPlace?.(ahead);
    }
  }

  *#inTurn(): Generator<Waiting> {
    const lists = [...this.#waiting.values()];
    const longest = Math.max(0, ...lists.map(({ length }) => length));
    for (let round = 0; round < longest; round++) {
      for (const list of lists) if (list[round]) yield list[round]!;
    }
  }
}
