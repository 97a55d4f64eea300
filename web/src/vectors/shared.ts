import type { SessionClient } from "../../../src/session/client.ts";
import type { Progress } from "../../../src/session/messages/requests.ts";
import type { Asking } from "../ask.ts";

interface Entry<T> {
  readonly promise: Promise<T>;
  readonly stop: AbortController;
  /** How many wait for it; it is given up with the last of them. */
  waiting: number;
  isDone: boolean;
  readonly listeners: Set<(progress: Progress) => void>;
}

/**
 * Things with handles in the session that several parts of the page use, each made once for a model: those used last are kept, the others
 * given back. Whoever asks may stop waiting; what nobody waits for any more is cancelled.
 */
export class Shared<T> {
  readonly #most: number;
  readonly #free: (value: T, client: SessionClient) => void;
  #client: SessionClient | undefined;
  #model = "";
  /** The ones used last come last. */
  #entries = new Map<string, Entry<T>>();

  constructor(most: number, free: (value: T, client: SessionClient) => void) {
    this.#most = most;
    this.#free = free;
  }

  async get(asking: Asking, key: string, make: (asking: Asking) => Promise<T>): Promise<T> {
    const { client, model, signal, onProgress } = asking;
    signal.throwIfAborted();
    if (client !== this.#client || model !== this.#model) this.#begin(client, model);
    const entry = this.#entries.get(key) ?? this.#make(asking, key, make);
    this.#entries.delete(key);
    this.#entries.set(key, entry);
    entry.waiting += 1;
    entry.listeners.add(onProgress);
    let leave = () => {};
    const gone = new Promise<never>((_, reject) => {
      leave = () => reject(signal.reason);
      signal.addEventListener("abort", leave, { once: true });
    });
    try {
      return await Promise.race([entry.promise, gone]);
    } finally {
      signal.removeEventListener("abort", leave);
      entry.listeners.delete(onProgress);
      entry.waiting -= 1;
      if (entry.waiting === 0 && !entry.isDone) {
        if (this.#entries.get(key) === entry) this.#entries.delete(key);
        entry.stop.abort(signal.reason);
      }
    }
  }

  #make({ client, model }: Asking, key: string, make: (asking: Asking) => Promise<T>): Entry<T> {
    const stop = new AbortController();
    const listeners = new Set<(progress: Progress) => void>();
    const onProgress = (progress: Progress) => {
      for (const listener of listeners) listener(progress);
    };
    const promise = make({ client, model, signal: stop.signal, onProgress });
    const entry: Entry<T> = { promise, stop, waiting: 0, isDone: false, listeners };
    promise.then(
      () => {
        entry.isDone = true;
        if (this.#entries.get(key) !== entry) this.#giveBack(entry, client);
        else this.#thin(client);
      },
      () => {
        entry.isDone = true;
        if (this.#entries.get(key) === entry) this.#entries.delete(key);
      },
    );
    return entry;
  }

  #thin(client: SessionClient): void {
    for (const [key, entry] of this.#entries) {
      if (this.#entries.size <= this.#most) return;
      if (!entry.isDone || entry.waiting > 0) continue;
      this.#entries.delete(key);
      this.#giveBack(entry, client);
    }
  }

  /** Another model, or another session: what was made for the one of before is of no use. */
  #begin(client: SessionClient, model: string): void {
    const before = this.#client;
    if (before) {
      for (const entry of this.#entries.values()) if (entry.isDone) this.#giveBack(entry, before);
    }
    this.#entries = new Map();
    this.#client = client;
    this.#model = model;
  }

  #giveBack({ promise }: Entry<T>, client: SessionClient): void {
    void promise.then((value) => this.#free(value, client)).catch(() => {});
  }
}
