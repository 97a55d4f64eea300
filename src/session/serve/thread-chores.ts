import { existsSync } from "node:fs";
import { Worker } from "node:worker_threads";
import type { WireError } from "../messages/protocol.ts";
import { decodeError } from "../messages/wire-error.ts";
import { type Chores, OWN_CHORES } from "../state/chores.ts";

export interface ChoreOrder {
  readonly id: number;
  readonly name: keyof Chores;
  readonly args: readonly unknown[];
}

export type ChoreAnswer =
  | { readonly id: number; readonly result: unknown }
  | { readonly id: number; readonly error: WireError };

/** Built beside this file; sources that are run as they are have no thread of their own. */
const THREAD = new URL("./chores-thread.js", import.meta.url);

/** Chores that another thread does, which is started with the first of them. */
export class ThreadChores implements Chores {
  #thread: Worker | undefined;
  readonly #waiting = new Map<number, { resolve: (result: never) => void; reject: (error: Error) => void }>();
  #last = 0;

  decode(file: Uint8Array, maxPixels: number) {
    return this.#ask("decode", file, maxPixels);
  }

  pixels(...args: Parameters<Chores["pixels"]>) {
    return this.#ask("pixels", ...args);
  }

  view(...args: Parameters<Chores["view"]>) {
    return this.#ask("view", ...args);
  }

  plane(...args: Parameters<Chores["plane"]>) {
    return this.#ask("plane", ...args);
  }

  /** Ends the thread; what it has not done is rejected. */
  async close(): Promise<void> {
    await this.#thread?.terminate();
  }

  #ask<Name extends keyof Chores>(name: Name, ...args: Parameters<Chores[Name]>): ReturnType<Chores[Name]> {
    const thread = this.#thread ?? this.#start();
    if (!thread) return (OWN_CHORES[name] as (...all: typeof args) => ReturnType<Chores[Name]>)(...args);
    this.#last += 1;
    const id = this.#last;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve: resolve as (result: never) => void, reject });
      thread.postMessage({ id, name, args } satisfies ChoreOrder);
    }) as ReturnType<Chores[Name]>;
  }

  #start(): Worker | undefined {
    if (THREAD.protocol !== "file:" || !existsSync(THREAD)) return undefined;
    const thread = new Worker(THREAD);
    this.#thread = thread;
    thread.unref();
    thread.on("message", (answer: ChoreAnswer) => {
      const waiting = this.#waiting.get(answer.id);
      this.#waiting.delete(answer.id);
      if ("error" in answer) waiting?.reject(decodeError(answer.error));
      else waiting?.resolve(answer.result as never);
    });
    const end = (error: Error) => {
      this.#thread = undefined;
      for (const { reject } of this.#waiting.values()) reject(error);
      this.#waiting.clear();
    };
    thread.on("error", end);
    thread.on("exit", () => end(new Error("the thread for pictures and projections has ended")));
    return thread;
  }
}
