import type { Folder } from "../../model/checkpoint/source/folder.ts";
import type { Quantise } from "../../model/checkpoint/weights/quantise.ts";
import { loadModel, type PatchableModel } from "../../patching/model.ts";
import type { AbortController, AbortSignal } from "../../platform/global-types.ts";
import type { Device } from "../../tensor/device.ts";
import { type DeviceOptions, openDevice } from "../../tensor/open-device.ts";
import type { Progress } from "../messages/requests.ts";

/** A model on the device, for as long as a client has it. */
export class SharedModel {
  readonly key: string | undefined;
  readonly model: Promise<PatchableModel>;
  /** The model once it is there. */
  loaded: PatchableModel | undefined;
  users = 0;
  readonly listeners = new Set<(progress: Progress) => void>();
  readonly #stop: AbortController;

  constructor(key: string | undefined, model: Promise<PatchableModel>, stop: AbortController) {
    this.key = key;
    this.model = model;
    this.#stop = stop;
    model.then(
      (loaded) => {
        this.loaded = loaded;
        if (this.users === 0) loaded.dispose();
      },
      () => {}, // told to whoever waits for it
    );
  }

  /** The last user has gone. */
  end(): void {
    this.#stop.abort(new Error("nobody waits for this model any more"));
    this.loaded?.dispose();
  }
}

export interface ModelOrder {
  /** Equal orders share a model; undefined for what is nobody else's. */
  readonly key: string | undefined;
  readonly ref: string | Folder;
  readonly base?: string | undefined;
  readonly adapters?: readonly string[] | undefined;
  readonly quantise?: Quantise | undefined;
}

/**
 * Where a model's files are, of a reference that a request gives: the reference itself, or a folder, which may keep what it has read
 * (a browser's cache). Throws where there are none.
 */
export type FindFolder = (
  ref: string,
  told: { readonly signal: AbortSignal; readonly onProgress: (progress: Progress) => void },
) => string | Folder | Promise<string | Folder>;

export interface EngineOptions {
  /** How to open the device. */
  readonly device?: DeviceOptions | (() => Promise<Device>);
  readonly findFolder?: FindFolder | undefined;
  /** For gated models of the hub. */
  readonly accessToken?: string | undefined;
}

/** The device of a host, and the models that are on it. */
export class Engine {
  readonly #open: () => Promise<Device>;
  readonly #findFolder: FindFolder;
  readonly #accessToken: string | undefined;
  #device: Promise<Device> | undefined;
  readonly #models = new Map<string, SharedModel>();
  /** One model is read at a time, beside what is computed: reading waits for disks and networks. */
  #loading: Promise<unknown> = Promise.resolve();

  constructor({ device = {}, findFolder = (ref) => ref, accessToken }: EngineOptions) {
    this.#open = typeof device === "function" ? device : () => openDevice(device);
    this.#findFolder = findFolder;
    this.#accessToken = accessToken;
  }

  /** Opens it with the first call, and a new one when it has been lost. Throws DeviceError. */
  device(): Promise<Device> {
    if (this.#device) return this.#device;
    const opening = this.#open();
    this.#device = opening;
    const forget = () => {
      if (this.#device !== opening) return;
      this.#device = undefined;
      this.#models.clear(); // they were on it; whoever uses one is told that it is lost
    };
    opening.then((device) => device.gpu.lost.then(forget), forget);
    return opening;
  }

  /** Whether a model of this key is there. */
  has(key: string): boolean {
    return this.#models.get(key)?.loaded !== undefined;
  }

  /** A model for one more user, who calls {@link giveBack} when done with it. Rejects as `loadModel` does. */
  async take(
    order: ModelOrder,
    { signal, onProgress }: { signal: AbortSignal; onProgress: (progress: Progress) => void },
  ): Promise<SharedModel> {
    await this.device();
    signal.throwIfAborted();
    const shared = (order.key !== undefined && this.#models.get(order.key)) || this.#begin(order);
    shared.users += 1;
    shared.listeners.add(onProgress);
    let give: (() => void) | undefined;
    try {
      await Promise.race([
        shared.model,
        new Promise<never>((_, reject) => {
          give = () => reject(signal.reason);
          signal.addEventListener("abort", give, { once: true });
        }),
      ]);
      return shared;
    } catch (error) {
      this.giveBack(shared);
      throw error;
    } finally {
      shared.listeners.delete(onProgress);
      if (give) signal.removeEventListener("abort", give);
    }
  }

  giveBack(shared: SharedModel): void {
    shared.users -= 1;
    if (shared.users > 0) return;
    if (shared.key !== undefined && this.#models.get(shared.key) === shared) this.#models.delete(shared.key);
    shared.end();
  }

  /** Ends the device, with all that is on it. */
  async close(): Promise<void> {
    const device = await this.#device?.catch(() => undefined);
    this.#device = undefined;
    this.#models.clear();
    await device?.destroy();
  }

  #begin(order: ModelOrder): SharedModel {
    const stop = new AbortController();
    const tell = (progress: Progress) => {
      stop.signal.throwIfAborted();
      for (const listener of shared.listeners) listener(progress);
    };
    const model = this.#loading.then(() => this.#load(order, stop.signal, tell));
    this.#loading = model.catch(() => {});
    const shared = new SharedModel(order.key, model, stop);
    if (order.key !== undefined) {
      this.#models.set(order.key, shared);
      model.catch(() => {
        if (this.#models.get(order.key!) === shared) this.#models.delete(order.key!);
      });
    }
    return shared;
  }

  async #load(
    { ref, base, adapters, quantise }: ModelOrder,
    signal: AbortSignal,
    tell: (progress: Progress) => void,
  ): Promise<PatchableModel> {
    signal.throwIfAborted();
    const found = async (one: string | Folder) =>
      typeof one === "string" ? this.#findFolder(one, { signal, onProgress: tell }) : one;
    const accessToken = this.#accessToken;
    return await loadModel(await found(ref), {
      device: await this.device(),
      fetch: (input, init) => fetch(input, { ...init, signal }),
      onProgress: ({ loadedBytes, totalBytes }) =>
        tell({ phase: "load", done: loadedBytes, total: totalBytes }),
      onDownload: ({ file, downloadedBytes, totalBytes }) =>
        tell({ phase: "download", file, done: downloadedBytes, total: totalBytes }),
      ...(base !== undefined && { base: await found(base) }),
      ...(adapters && { adapters: await Promise.all(adapters.map(found)) }),
      ...(quantise !== undefined && { quantise }),
      ...(accessToken !== undefined && { accessToken }),
    });
  }
}
