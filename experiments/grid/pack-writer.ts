import { closeSync, fsyncSync, mkdirSync, openSync, writeSync } from "node:fs";
import { join } from "node:path";
import { FileError } from "xpatch";
import { showSystemError } from "#src/platform/node-write";
import { sha256 } from "./cell-names.ts";

/** What an entry of a pack is: a cell's result, that the model refuses it, what went wrong in it, or a file of a cell's. */
export const ENTRY_KINDS = ["cell", "refused", "failed", "file"] as const;
export type EntryKind = (typeof ENTRY_KINDS)[number];

/** Where an entry is. */
export interface Entry {
  readonly kind: EntryKind;
  /** Of the cell or file, in its run. */
  readonly id: string;
  /** Path of the pack without `.data`. */
  readonly pack: string;
  readonly offset: number;
  readonly length: number;
  readonly sha256: string;
  /** What the cell took. */
  readonly seconds: number;
}

/** Cells that take less than this are flushed together: a flush takes some milliseconds, and more on a shared file system. */
const FLUSH_SECONDS = 0.5;
const MOST_BYTES = 8 << 20;

/**
 * What one process has finished of a run: two files of its own that only grow. `<worker>.data` has the entries' bytes one after
 * the other; `<worker>.index` begins with whose they are and has a line an entry, written when its bytes are on the disk. So
 * there are a few files a worker, not one a cell, nobody waits for anybody, and an end at any moment leaves whole entries and
 * at most bytes that no line speaks of.
 */
export class PackWriter {
  readonly #path: string;
  readonly #header: string;
  #files: { readonly data: number; readonly index: number } | undefined;
  #end = 0;
  #pending: { bytes: Uint8Array; entry: Entry; onKept: ((entry: Entry) => void) | undefined }[] = [];
  #pendingBytes = 0;
  #flushed = 0;
  #timer: NodeJS.Timeout | undefined;
  /** What a write failed with: where the next one would be is not known then. */
  #broken: FileError | undefined;

  /** @param header - Of the index: what run, under which setting. */
  constructor(folder: string, worker: string, header: string) {
    this.#path = join(folder, worker);
    this.#header = header;
  }

  /**
   * Takes an entry. It is on the disk when `onKept` is called: at once, or with others within half a second.
   *
   * @param id - 24 hex digits
   */
  add(
    kind: EntryKind,
    id: string,
    bytes: Uint8Array,
    seconds: number,
    onKept?: (entry: Entry) => void,
  ): void {
    const { length } = bytes;
    const entry = { kind, id, pack: this.#path, offset: this.#end, length, sha256: sha256(bytes), seconds };
    this.#end += length;
    this.#pending.push({ bytes, entry, onKept });
    this.#pendingBytes += bytes.length;
    if (performance.now() - this.#flushed > FLUSH_SECONDS * 1000 || this.#pendingBytes > MOST_BYTES)
      this.flush();
    else this.#timer ??= setTimeout(() => this.flush(), FLUSH_SECONDS * 1000);
  }

  /** Throws FileError where the disk does not take it. */
  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#broken) throw this.#broken;
    const pending = this.#pending;
    if (pending.length > 0) {
      this.#pending = [];
      this.#pendingBytes = 0;
      try {
        const { data, index } = this.#open();
        append(data, Buffer.concat(pending.map(({ bytes }) => bytes)));
        append(index, Buffer.from(pending.map(({ entry }) => lineOf(entry)).join("")));
      } catch (cause) {
        const reason = showSystemError(cause as NodeJS.ErrnoException);
        this.#broken = new FileError(`cannot write ${this.#path}.data: ${reason}`, { cause });
        throw this.#broken;
      }
    }
    this.#flushed = performance.now();
    for (const { entry, onKept } of pending) onKept?.(entry);
  }

  /** Flushes, unless that has failed before. */
  close(): void {
    if (!this.#broken) this.flush();
    if (!this.#files) return;
    closeSync(this.#files.data);
    closeSync(this.#files.index);
    this.#files = undefined;
  }

  #open() {
    if (this.#files) return this.#files;
    mkdirSync(join(this.#path, ".."), { recursive: true });
    // Names of workers are never used twice.
    const data = openSync(`${this.#path}.data`, "wx");
    const index = openSync(`${this.#path}.index`, "wx");
    append(index, Buffer.from(`${this.#header}\n`));
    this.#files = { data, index };
    return this.#files;
  }
}

function append(file: number, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.length; ) done += writeSync(file, bytes, done, bytes.length - done);
  fsyncSync(file);
}

function lineOf({ kind, id, offset, length, sha256: hash, seconds }: Entry): string {
  return `${kind} ${id} ${offset} ${length} ${hash} ${seconds.toFixed(3)}\n`;
}
