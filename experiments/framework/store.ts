import {
  closeSync,
  existsSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readFileSync,
  truncateSync,
  writeSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { FileError, XpatchError } from "xpatch";
import { decodeText } from "#src/platform/node-text";
import { showSystemError, writeWhole } from "#src/platform/node-write";
import { CELL_FORMAT, outdated } from "./cell-format.ts";
import type { CellRecord, CellStore } from "./cell-store.ts";
import type { FolderLock } from "./folder-lock.ts";
import { differences, type Setting } from "./setting.ts";

/**
 * The finished cells of a run, in `cells.jsonl` of its folder: the setting and the cells' format, then a line a cell,
 * appended as they finish.
 * A process that is killed leaves whole lines and perhaps the beginning of one, which the next one cuts off.
 */
export class Store implements CellStore {
  readonly #path: string;
  readonly #records: Map<string, CellRecord>;
  readonly #lock: FolderLock;

  private constructor(path: string, records: Map<string, CellRecord>, lock: FolderLock) {
    this.#path = path;
    this.#records = records;
    this.#lock = lock;
  }

  /**
   * Begins or continues the run of a folder. Throws XpatchError if that run has another setting, is of a version that keeps
   * other things in its cells, or is damaged.
   */
  static async open(lock: FolderLock, setting: Setting): Promise<Store> {
    const { folder } = lock;
    const path = join(folder, "cells.jsonl");
    if (!existsSync(path)) {
      await writeWhole(path, `${JSON.stringify({ ...setting, format: CELL_FORMAT })}\n`);
      return new Store(path, new Map(), lock);
    }
    const bytes = readFileSync(path);
    const whole = wholeLines(bytes);
    if (whole < bytes.length) truncateSync(path, whole);
    const check = (found: Setting) => checkSame(folder, found, setting);
    const { format, records } = contents(bytes, path, check);
    checkFormat(folder, format, records, setting);
    return new Store(path, new Map(records.map((record) => [record.key, record])), lock);
  }

  /**
   * Throws XpatchError if the folder holds a run of other options or tasks: what of its setting is known before the models
   * are loaded.
   */
  static check({ folder }: FolderLock, { options, tasks }: Pick<Setting, "options" | "tasks">): void {
    const path = join(folder, "cells.jsonl");
    if (!existsSync(path)) return;
    const [header] = decodeText(readFileSync(path), path).split("\n");
    const before = parse(header ?? "", path, 1) as Setting;
    checkSame(folder, { options: before.options, tasks: before.tasks }, { options, tasks });
  }

  /**
   * The setting and the finished cells of a folder, as they are now: also while a run goes on. Throws XpatchError where there are
   * none, or of another format.
   */
  static read(folder: string): { setting: Setting; records: CellRecord[] } {
    const path = join(folder, "cells.jsonl");
    if (!existsSync(path)) {
      throw new XpatchError(
        `${folder}: expected the folder of a run, with cells.jsonl, as xpatch experiment and reproduce write it`,
      );
    }
    const { format, setting, records } = contents(readFileSync(path), path);
    checkFormat(folder, format, records, setting);
    return { setting, records };
  }

  has(key: string): boolean {
    return this.#records.has(key);
  }

  get(key: string): CellRecord | undefined {
    return this.#records.get(key);
  }

  /** In the order in which they finished. */
  get records(): CellRecord[] {
    return [...this.#records.values()];
  }

  /** Keeps a finished cell; returns it as a later process will read it. Throws FileError if the disk does not take it. */
  add(record: CellRecord): CellRecord {
    const line = JSON.stringify(record);
    this.#lock.check();
    append(this.#path, `${line}\n`);
    const kept = JSON.parse(line) as CellRecord;
    this.#records.set(kept.key, kept);
    return kept;
  }

  async keepFile(path: string, bytes: Uint8Array): Promise<void> {
    const target = join(this.#lock.folder, path);
    mkdirSync(dirname(target), { recursive: true });
    await writeWhole(target, bytes);
  }

  file(path: string): Uint8Array<ArrayBuffer> {
    return new Uint8Array(readFileSync(join(this.#lock.folder, path)));
  }
}

/** How many bytes are whole lines. */
function wholeLines(bytes: Uint8Array): number {
  return bytes.lastIndexOf(0x0a) + 1;
}

/** What the whole lines of a store say; `check` sees the setting before the cells are read. */
function contents(
  bytes: Uint8Array,
  path: string,
  check: (setting: Setting) => void = () => {},
): { format: number | undefined; setting: Setting; records: CellRecord[] } {
  const [header, ...lines] = decodeText(bytes.subarray(0, wholeLines(bytes)), path)
    .split("\n")
    .slice(0, -1);
  const { format, ...setting } = parse(header ?? "", path, 1) as Setting & { format?: number };
  check(setting);
  return { format, setting, records: lines.map((line, i) => parse(line, path, i + 2) as CellRecord) };
}

/** Throws XpatchError where settings differ. */
function checkSame(folder: string, before: Partial<Setting>, now: Partial<Setting>): void {
  const changed = differences(before, now);
  if (changed.length === 0) return;
  throw new XpatchError(
    `${folder} holds a run of another setting; take another folder, or go on as it began: ${changed.join("; ")}`,
  );
}

/** Throws XpatchError where cells that another version has kept do not hold what they would hold today. */
function checkFormat(
  folder: string,
  format: number | undefined,
  records: readonly CellRecord[],
  setting: Setting,
): void {
  if (format === CELL_FORMAT) return;
  const old = records.find((record) => outdated(record, setting));
  if (format === undefined && !old) return;
  const found =
    format === undefined
      ? `in the cell "${old!.key}" ${outdated(old!, setting)}`
      : `its cells have the format ${format}`;
  throw new XpatchError(
    `${folder} holds a run of another version of xpatch, take another folder: expected cells of format ${CELL_FORMAT}, ${found}`,
  );
}

/** Adds whole lines to a file and flushes it; what was written of them when that fails is taken back. */
function append(path: string, lines: string): void {
  const file = openSync(path, "r+");
  try {
    const bytes = Buffer.from(lines);
    const end = fstatSync(file).size;
    try {
      for (let done = 0; done < bytes.length; ) {
        done += writeSync(file, bytes, done, bytes.length - done, end + done);
      }
      fsyncSync(file);
    } catch (cause) {
      takeBack(file, end);
      const reason = showSystemError(cause as NodeJS.ErrnoException);
      throw new FileError(`cannot write ${path}: ${reason}`, { cause });
    }
  } finally {
    closeSync(file);
  }
}

function takeBack(file: number, end: number): void {
  try {
    ftruncateSync(file, end);
  } catch {
    // Half a line at the end is cut off by whoever opens the store next.
  }
}

function parse(line: string, path: string, number: number): unknown {
  try {
    return JSON.parse(line);
  } catch (cause) {
    throw new XpatchError(`${path}: line ${number} is damaged: ${(cause as Error).message}`, { cause });
  }
}
