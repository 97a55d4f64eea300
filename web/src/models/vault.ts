import type { Manifest } from "./manifest.ts";

/** A model that is kept, or on its way. */
export interface KeptModel {
  readonly id: string;
  readonly manifest: Manifest;
}

/** Appends to a file. One at a time: whoever writes holds the lock of its key. */
export interface PartWriter {
  /** Throws NoRoomError, or QuotaExceededError as the browser does. */
  append(bytes: Uint8Array<ArrayBuffer>): Promise<void>;
  /** What was appended stays, also after a reload. */
  close(): Promise<void>;
}

/** Where files are kept over visits, by keys that are their hashes; and which models they belong to. */
export interface Vault {
  readonly name: "OPFS" | "Cache API";
  /** A file that came whole and was checked; undefined where there is none. */
  whole(key: string): Promise<Blob | undefined>;
  /** What has come of a file so far; empty where nothing has. */
  part(key: string): Promise<Blob>;
  /** To append to that, or to begin anew. */
  write(key: string, anew: boolean): Promise<PartWriter>;
  /** What has come is the whole file. */
  finish(key: string): Promise<void>;
  /** Forgets a file, whole or not. */
  removeFile(key: string): Promise<void>;
  /** The keys of all files, whole or not, with their bytes. */
  files(): Promise<ReadonlyMap<string, { bytes: number; whole: boolean }>>;

  models(): Promise<KeptModel[]>;
  addModel(model: KeptModel): Promise<void>;
  removeModel(id: string): Promise<void>;
}

/** The browser has no more room for this site. */
export class NoRoomError extends Error {
  override name = "NoRoomError";
}

/** Held by whoever reads which models there are (shared), or changes that (exclusive). */
export const RECORDS_LOCK = "xpatch-models";

/** Keeps other tabs from writing a file at the same time. */
export function lockOf(key: string): string {
  return `xpatch-file:${key}`;
}
