import { existsSync, linkSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { XpatchError } from "xpatch";
import { writeWhole } from "#src/platform/node-write";
import type { Params } from "../framework/cell.ts";
import type { CellRecord } from "../framework/cell-store.ts";
import { differences, type Setting } from "../framework/setting.ts";
import { GRID_FORMAT, idOf, sha256 } from "./cell-names.ts";
import { type Damage, PackReader, readEntry } from "./pack-reader.ts";
import type { Entry } from "./pack-writer.ts";

/** What a pack keeps of a finished cell; its seconds are in the index, as they are another machine's each time. */
export interface KeptCell extends Omit<CellRecord, "seconds" | "params"> {
  readonly params: Params;
  /** Keys of the cells that it asked for, in that order. */
  readonly needs: readonly string[];
  /** Paths of the files that go with it, in the folder of the run's results. */
  readonly files: readonly string[];
}

/** Of a cell that the model refuses, by its sites or by how it takes prompts and pictures: as final as a result. */
export interface RefusedCell {
  readonly key: string;
  readonly needs: readonly string[];
  readonly refused: { readonly name: string; readonly message: string };
}

export interface FailedCell {
  readonly key: string;
  readonly error: string;
}

/** How many times as long as looking took the next look has to wait. */
const LOOKING = 20;

export type CellState = "finished" | "refused" | "failed" | "missing";

/** What is kept of one run of a grid: a folder with the setting, the packs of all workers and their claims. */
export class RunStore {
  readonly id: string;
  readonly folder: string;
  readonly #packs: PackReader;
  /** By id of cell or file: the last entry of each kind that is no failure, and others that differ from it. */
  readonly #kept = new Map<string, Entry>();
  readonly #others = new Map<string, Entry[]>();
  readonly #failed = new Map<string, Entry>();
  #header: string | undefined;
  #refreshAt = 0;

  constructor(folder: string, id: string) {
    this.folder = folder;
    this.id = id;
    this.#packs = new PackReader(join(folder, "packs"), () => this.header);
  }

  get packFolder(): string {
    return join(this.folder, "packs");
  }

  get claimFolder(): string {
    return join(this.folder, "claims");
  }

  /** What cannot be read of the packs: cells in it count as missing. */
  get damages(): readonly Damage[] {
    return this.#packs.damages;
  }

  /** The setting that the run was begun with, by whichever worker came first; undefined where none has. */
  get setting(): Setting | undefined {
    const path = this.#settingPath;
    if (!existsSync(path)) return undefined;
    try {
      return JSON.parse(readFileSync(path, "utf8")) as Setting;
    } catch (cause) {
      throw new XpatchError(`${path} is damaged: ${(cause as Error).message}`, { cause });
    }
  }

  /**
   * Begins the run under a setting, or goes on with it. Throws XpatchError where it was begun under another one: on another
   * adapter, say, whose numbers would be mixed with these.
   *
   * @returns the header of packs
   */
  async begin(setting: Setting): Promise<string> {
    const path = this.#settingPath;
    if (!existsSync(path)) {
      mkdirSync(this.folder, { recursive: true });
      // Whole from the first moment, and never in place of another one.
      const own = `${path}.${process.pid}-${Math.random().toString(36).slice(2)}.tmp`;
      await writeWhole(own, JSON.stringify(setting, null, 2));
      try {
        linkSync(own, path);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "EEXIST") await writeWhole(path, readFileSync(own));
      } finally {
        rmSync(own, { force: true });
      }
    }
    const changed = differences(this.setting, JSON.parse(JSON.stringify(setting)));
    if (changed.length > 0) {
      throw new XpatchError(
        `${this.folder} was begun by a worker with another setting; all workers of a grid need the same: ${changed.join("; ")}`,
      );
    }
    this.#header = headerOf(this.id, readFileSync(path));
    return this.#header;
  }

  /** Sees what other processes have finished since. */
  refresh(): void {
    const start = performance.now();
    for (const entry of this.#packs.refresh()) this.take(entry);
    const now = performance.now();
    this.#refreshAt = now + LOOKING * (now - start);
  }

  /** The same, as long as looking takes a small part of the time: of a run with a thousand workers it is a thousand files. */
  refreshNowAndThen(): void {
    if (performance.now() >= this.#refreshAt) this.refresh();
  }

  /** Takes note of an entry. */
  take(entry: Entry): void {
    const { id, kind } = entry;
    if (kind === "failed") {
      this.#failed.set(id, entry);
      return;
    }
    this.#failed.delete(id);
    const first = this.#kept.get(id);
    if (!first) this.#kept.set(id, entry);
    else if (first.pack !== entry.pack || first.offset !== entry.offset) {
      // Of a pack of one's own an entry is seen twice: as it is written, and as it is read.
      this.#others.set(id, [...(this.#others.get(id) ?? []), entry]);
    }
  }

  state(key: string): CellState {
    const id = idOf(this.id, key);
    const kept = this.#kept.get(id);
    if (kept) return kept.kind === "refused" ? "refused" : "finished";
    return this.#failed.has(id) ? "failed" : "missing";
  }

  /** Of a cell that is finished or refused, what it took whoever computed it. */
  secondsOf(key: string): number | undefined {
    return this.#kept.get(idOf(this.id, key))?.seconds;
  }

  /** What is kept of a cell, if it is there. Throws XpatchError where it is damaged in all places. */
  cell(key: string): KeptCell | RefusedCell | undefined {
    const bytes = this.#bytes(key, `the cell "${key}"`);
    return bytes && (JSON.parse(bytes.toString("utf8")) as KeptCell | RefusedCell);
  }

  /** A file of a cell. Throws XpatchError where it is missing or damaged. */
  file(path: string): Buffer<ArrayBuffer> {
    const bytes = this.#bytes(path, `the file ${path}`);
    if (bytes) return bytes as Buffer<ArrayBuffer>;
    throw new XpatchError(`${this.folder}: the file ${path} of a finished cell is missing`);
  }

  /** The last error of a cell. */
  failure(key: string): string | undefined {
    const entry = this.#failed.get(idOf(this.id, key));
    const bytes = entry && readEntry(entry);
    if (!bytes) return undefined;
    return Buffer.isBuffer(bytes)
      ? (JSON.parse(bytes.toString("utf8")) as FailedCell).error
      : `${bytes.where}: ${bytes.what}`;
  }

  /** Throws XpatchError where two workers have kept different things of a cell or a file. */
  checkSame(key: string, what = `the cell "${key}"`): void {
    const id = idOf(this.id, key);
    const first = this.#kept.get(id);
    const other = this.#others.get(id)?.find(({ sha256: hash }) => hash !== first?.sha256);
    if (!other) return;
    throw new XpatchError(
      `${what} came out differently in ${first!.pack}.data and ${other.pack}.data: numbers of this setting are not the same each time`,
    );
  }

  #bytes(key: string, what: string): Buffer | undefined {
    const id = idOf(this.id, key);
    const first = this.#kept.get(id);
    if (!first) return undefined;
    const damages: Damage[] = [];
    for (const entry of [first, ...(this.#others.get(id) ?? [])]) {
      const bytes = readEntry(entry);
      if (Buffer.isBuffer(bytes)) return bytes;
      damages.push(bytes);
    }
    const [{ where, what: wrong }] = damages as [Damage];
    const pack = first.pack;
    throw new XpatchError(
      `${what} is damaged: ${where}: ${wrong}; delete ${pack}.data and ${pack}.index, and "xpatch grid run" computes their cells again`,
    );
  }

  get #settingPath(): string {
    return join(this.folder, "setting.json");
  }

  /** What its packs begin with; undefined where no worker has begun it. */
  get header(): string | undefined {
    if (this.#header === undefined && existsSync(this.#settingPath)) {
      this.#header = headerOf(this.id, readFileSync(this.#settingPath));
    }
    return this.#header;
  }
}

/** What each index of a run begins with. */
function headerOf(run: string, setting: Uint8Array): string {
  return `xpatch-grid ${GRID_FORMAT} ${run} ${sha256(setting).slice(0, 16)}`;
}
