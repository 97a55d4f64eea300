import { CheckpointError } from "../../../src/errors.ts";
import type { FetchProgress, KeptBytes } from "./fetch-model.ts";
import type { Manifest } from "./manifest.ts";
import type { StoreAnswer, StoreRequest } from "./store-messages.ts";

export interface FetchOptions {
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: FetchProgress) => void;
}

/** What the browser keeps, and whether it keeps anything at all. */
export interface Kept {
  readonly models: readonly KeptBytes[];
  /** What it is kept in; undefined where this browser lets the page keep nothing. */
  readonly vault: string | undefined;
}

type Request = StoreRequest extends infer R ? (R extends { id: number } ? Omit<R, "id"> : never) : never;
type Answer<Type extends StoreAnswer["type"]> = Extract<StoreAnswer, { type: Type }>;

interface Pending {
  readonly resolve: (answer: never) => void;
  readonly reject: (error: Error) => void;
  readonly onProgress: ((progress: FetchProgress) => void) | undefined;
}

/** Fetches models and keeps them over visits: the page's side of the worker that does it. */
export class ModelStore {
  #worker: Worker | undefined;
  readonly #pending = new Map<number, Pending>();
  #last = 0;

  /**
   * The files of a model, by their paths, from this browser's storage; what is not there is fetched first. Where they cannot be kept it
   * says why. Throws CheckpointError when files cannot be had or are not those that they should be, and the signal's reason.
   */
  async fetch(
    model: string,
    manifest: Manifest,
    options: FetchOptions = {},
  ): Promise<{ readonly files: ReadonlyMap<string, Blob> } | { readonly why: string }> {
    const absolute = manifest.files.map((file) => ({
      ...file,
      url: new URL(file.url, document.baseURI).href,
    }));
    const request = { type: "fetch", model, manifest: { ...manifest, files: absolute } } as const;
    return this.#ask<"fetched">(request, options);
  }

  async list(): Promise<Kept> {
    const { kept, vault } = await this.#ask<"listed">({ type: "list" });
    return { models: kept, vault };
  }

  async remove(model: string): Promise<void> {
    await this.#ask<"removed">({ type: "remove", model });
  }

  #ask<Type extends StoreAnswer["type"]>(
    request: Request,
    { signal, onProgress }: FetchOptions = {},
  ): Promise<Answer<Type>> {
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      this.#last += 1;
      const id = this.#last;
      this.#pending.set(id, { resolve, reject, onProgress });
      this.#send({ ...request, id } as StoreRequest);
      signal?.addEventListener("abort", () => {
        if (!this.#pending.delete(id)) return;
        this.#send({ id: 0, type: "cancel", request: id });
        reject(signal.reason);
      });
    });
  }

  #send(request: StoreRequest): void {
    if (!this.#worker) {
      this.#worker = new Worker(new URL("./store-worker.ts", import.meta.url), {
        type: "module",
        name: "models",
      });
      this.#worker.onmessage = ({ data }: MessageEvent<StoreAnswer>) => this.#receive(data);
      this.#worker.onerror = ({ message }) => {
        for (const { reject } of this.#pending.values())
          reject(new Error(message || "the worker has failed"));
        this.#pending.clear();
        this.#worker = undefined;
      };
    }
    this.#worker.postMessage(request);
  }

  #receive(answer: StoreAnswer): void {
    const pending = this.#pending.get(answer.id);
    if (answer.type === "progress") {
      pending?.onProgress?.(answer.progress);
      return;
    }
    this.#pending.delete(answer.id);
    if (answer.type === "failed") pending?.reject(new CheckpointError(answer.message));
    else pending?.resolve(answer as never);
  }
}
