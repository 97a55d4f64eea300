import type { Fetch } from "../../../platform/global-types.ts";

/** Waits before the second, third and fourth attempt, in milliseconds. */
const PAUSES = [250, 750, 2250];
/** A server that asks for a longer pause has its answer reported instead. */
const MAX_PAUSE = 30_000;

export type Wait = (milliseconds: number) => Promise<void>;
const sleep: Wait = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

/** Attempts at something that may fail for a moment: four, with growing pauses. */
export class Attempts {
  readonly #wait: Wait;
  #failures = 0;

  constructor(wait: Wait = sleep) {
    this.#wait = wait;
  }

  /** Number of attempts that have failed. */
  get failures(): number {
    return this.#failures;
  }

  /** Starts to count anew, after an attempt that got somewhere. */
  reset(): void {
    this.#failures = 0;
  }

  /** After a failure: pauses and gives true when another attempt is to be made, of at least `pause` milliseconds. */
  async another(pause = 0): Promise<boolean> {
    const own = PAUSES[this.#failures++];
    if (own === undefined || pause > MAX_PAUSE) return false;
    await this.#wait(Math.max(own, pause));
    return true;
  }
}

/**
 * A fetch that tries again when the network fails or the server answers 429 or 5xx, at most three times, after as long as
 * `Retry-After` says. Gives the last answer, or throws the last error.
 */
export function retrying(fetch: Fetch, wait?: Wait): Fetch {
  return async (input, init) => {
    const attempts = new Attempts(wait);
    for (;;) {
      let response: Response;
      try {
        response = await fetch(input, init);
      } catch (error) {
        if (isDeliberate(error) || !(await attempts.another())) throw error;
        continue;
      }
      if (!isPassing(response.status) || !(await attempts.another(retryAfter(response)))) return response;
      await response.body?.cancel().catch(() => {}); // nobody will read it
    }
  };
}

/** An answer that may be another one in a moment; 501 and 505 are for good. */
function isPassing(status: number): boolean {
  return status === 429 || (status >= 500 && status !== 501 && status !== 505);
}

function isDeliberate(error: unknown): boolean {
  return error instanceof Error && error.name === "AbortError";
}

/** Milliseconds: the header has seconds or a date. */
function retryAfter(response: Response): number {
  const header = response.headers.get("retry-after");
  if (header === null) return 0;
  const pause = /^\d+$/.test(header) ? Number(header) * 1000 : Date.parse(header) - Date.now();
  return pause > 0 ? pause : 0;
}
