import { CheckpointError } from "../../errors.ts";
import { INSPECT } from "../../inspect.ts";
import { nearest } from "../../nearest.ts";
import type { TensorEntry } from "./entries/tensor-entry.ts";
import type { TensorsDigest } from "./entries/tensors-digest.ts";
import type { JsonObject } from "./json/config-reader.ts";
import type { AdapterBase, LoraAdapter, StoredUpdate } from "./lora/adapter.ts";
import { closeAll, type TensorFile } from "./safetensors/tensor-files.ts";
import { type Folder, readJson, readText } from "./source/folder.ts";

/** Missing tensors that a message spells out. */
const MAX_LISTED = 8;

/** What a checkpoint is put together from. */
export interface CheckpointParts extends AdapterBase {
  /** Where files other than tensors are. */
  readonly folder?: Folder;
  readonly digests: readonly TensorsDigest[];
}

/** A model as it lies on disk: its config, its tensors over all files, its adapters, and its other files. */
export class Checkpoint {
  /** The folder, URL or hub id that it was opened from. */
  readonly name: string;
  /** config.json, or undefined for a lone file. */
  readonly config: JsonObject | undefined;
  /** The open tensor files: of the model itself, of its base, of its adapters. */
  readonly files: readonly TensorFile[];
  /** The LoRA adapters on top of the tensors, in the order in which they apply. */
  readonly adapters: readonly LoraAdapter[];
  readonly #folder: Folder | undefined;
  readonly #entries: ReadonlyMap<string, TensorEntry>;
  readonly #updates: ReadonlyMap<string, readonly StoredUpdate[]>;
  readonly #digests: readonly TensorsDigest[];

  constructor(parts: CheckpointParts, files: readonly TensorFile[]) {
    this.name = parts.name;
    this.config = parts.config;
    this.files = files;
    this.adapters = parts.adapters;
    this.#folder = parts.folder;
    this.#entries = parts.entries;
    this.#updates = parts.updates;
    this.#digests = parts.digests;
  }

  /** Names of all tensors, as the files have them. */
  get names(): string[] {
    return [...this.#entries.keys()];
  }

  /** All tensors, unread. */
  get entries(): TensorEntry[] {
    return [...this.#entries.values()];
  }

  /** Bytes of all tensors in the files. */
  get storedBytes(): number {
    return this.entries.reduce((sum, entry) => sum + entry.storedBytes, 0);
  }

  /** The files' own words for the dtypes of the tensors, most bytes first. */
  get storedDtypes(): string[] {
    const bytes = new Map<string, number>();
    for (const { stored, storedBytes } of this.#entries.values()) {
      bytes.set(stored, (bytes.get(stored) ?? 0) + storedBytes);
    }
    return [...bytes].sort((a, b) => b[1] - a[1]).map(([dtype]) => dtype);
  }

  [INSPECT](): string {
    const family = this.config ? `${this.config["model_type"]}, ` : "";
    const lora = this.adapters.length > 0 ? `, LoRA ${this.adapters.map(({ name }) => name).join(", ")}` : "";
    return `Checkpoint ${this.name} (${family}${this.storedDtypes.join(" and ")}): ${this.#entries.size} tensors${lora}`;
  }

  /** Whether there is a tensor of this name. */
  has(name: string): boolean {
    return this.#entries.has(name);
  }

  /** Throws CheckpointError with the nearest present name when there is no such tensor. */
  entry(name: string): TensorEntry {
    this.require([name]);
    return this.#entries.get(name)!;
  }

  /** Throws one CheckpointError that lists those of `names` that are missing, each with the nearest present name. */
  require(names: Iterable<string>): void {
    const missing = [...names].filter((name) => !this.#entries.has(name));
    if (missing.length === 0) return;
    const lines = missing.slice(0, MAX_LISTED).map((name) => {
      const near = nearest(name, this.#entries.keys());
      return near === undefined ? name : `${name} (the nearest is ${near})`;
    });
    if (missing.length > MAX_LISTED) lines.push(`and ${missing.length - MAX_LISTED} more`);
    throw new CheckpointError(`${this.name} has no tensor ${lines.join(", ")}`);
  }

  /** What adapters add to a weight, in order. The entry itself is without them. */
  updatesOf(name: string): readonly StoredUpdate[] {
    return this.#updates.get(name) ?? [];
  }

  /** Names of the weights that adapters add something to. */
  get updated(): string[] {
    return [...this.#updates.keys()];
  }

  /**
   * Throws CheckpointError when a base that the model was assembled from is not the one that it was made for. To be called
   * when the tensors have been read, which is when their hashes are known; the rest is read for it.
   */
  async verify(): Promise<void> {
    for (const digest of this.#digests) await digest.verify();
  }

  /** Another file of the folder as text; undefined when there is none. Throws CheckpointError. */
  async text(path: string): Promise<string | undefined> {
    return this.#folder && readText(this.#folder, path);
  }

  /** Another file of the folder as JSON; undefined when there is none. Throws CheckpointError. */
  async json(path: string): Promise<unknown> {
    return this.#folder && readJson(this.#folder, path);
  }

  /** Why a file of the folder is missing, where there is more to say about it than that. */
  whyMissing(path: string): string | undefined {
    return this.#folder?.whyMissing?.(path);
  }

  /** Closes the files. */
  async close(): Promise<void> {
    await closeAll(this.files);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
