import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { XpatchError } from "xpatch";
import type { Params } from "./cell.ts";
import type { Cost } from "./cost.ts";
import { differences, type Setting } from "./setting.ts";

/** A finished cell: a line of the store. */
export interface CellRecord {
  readonly key: string;
  readonly kind: string;
  readonly params: Params;
  readonly result: unknown;
  /** Of this cell alone, without the cells that it asked for. */
  readonly cost: Cost;
  readonly seconds: number;
}

/**
 * The finished cells of a run, in `cells.jsonl` of its folder: the setting, then a line a cell, appended as they finish.
 * A process that is killed leaves whole lines and perhaps the beginning of one, which the next one cuts off.
 */
export class Store {
  readonly #path: string;
  readonly #records: Map<string, CellRecord>;

  private constructor(path: string, records: Map<string, CellRecord>) {
    this.#path = path;
    this.#records = records;
  }

  /** Begins or continues the run of a folder. Throws XpatchError if that run has another setting or is damaged. */
  static open(folder: string, setting: Setting): Store {
    mkdirSync(folder, { recursive: true });
    const path = join(folder, "cells.jsonl");
    if (!existsSync(path)) {
      writeAtomically(path, `${JSON.stringify(setting)}\n`);
      return new Store(path, new Map());
    }
    const bytes = readFileSync(path);
    const whole = bytes.lastIndexOf("\n") + 1;
    if (whole < bytes.length) truncateSync(path, whole);
    const [header, ...lines] = bytes.toString("utf8", 0, whole).split("\n").slice(0, -1);
    const changed = differences(parse(header ?? "", path, 1) as Setting, setting);
    if (changed.length > 0) {
      throw new XpatchError(
        `${folder} holds a run of another setting; take another folder, or go on as it began: ${changed.join("; ")}`,
      );
    }
    const records = lines.map((line, i) => parse(line, path, i + 2) as CellRecord);
    return new Store(path, new Map(records.map((record) => [record.key, record])));
  }

  get(key: string): CellRecord | undefined {
    return this.#records.get(key);
  }

  /** In the order in which they finished. */
  get records(): CellRecord[] {
    return [...this.#records.values()];
  }

  /** Keeps a finished cell; returns it as a later process will read it. */
  add(record: CellRecord): CellRecord {
    const line = JSON.stringify(record);
    appendFileSync(this.#path, `${line}\n`, { flush: true });
    const kept = JSON.parse(line) as CellRecord;
    this.#records.set(kept.key, kept);
    return kept;
  }
}

/** Writes a file so that others, and later processes, see all of it or nothing. */
export function writeAtomically(path: string, content: string | Uint8Array): void {
  const temporary = `${path}.${process.pid}.tmp`;
  writeFileSync(temporary, content, { flush: true });
  renameSync(temporary, path);
}

function parse(line: string, path: string, number: number): unknown {
  try {
    return JSON.parse(line);
  } catch (cause) {
    throw new XpatchError(`${path}: line ${number} is damaged: ${(cause as Error).message}`, { cause });
  }
}
