import { closeSync, fstatSync, openSync, readdirSync, readSync } from "node:fs";
import { join } from "node:path";
import { sha256 } from "./cell-names.ts";
import { ENTRY_KINDS, type Entry, type EntryKind } from "./pack-writer.ts";

/** Something in a pack that is not as it was written. */
export interface Damage {
  /** `…/packs/node7-4711-a1b2c3.index: line 12` */
  readonly where: string;
  readonly what: string;
}

const LINE = new RegExp(
  `^(${ENTRY_KINDS.join("|")}) ([0-9a-f]{24}) (\\d+) (\\d+) ([0-9a-f]{64}) (\\d+\\.\\d+)$`,
);

/** What is known of an index: how much has been read, and how many lines that were; whether it is of another grid. */
interface Read {
  readonly bytes: number;
  readonly lines: number;
  readonly foreign: boolean;
}

const UNREAD: Read = { bytes: 0, lines: 0, foreign: false };

/** The entries of all workers of a run, as far as they had been written when {@link refresh} was last called. */
export class PackReader {
  readonly #folder: string;
  readonly #header: () => string | undefined;
  readonly #read = new Map<string, Read>();
  readonly damages: Damage[] = [];

  /** @param header - What each index has to begin with; undefined where that is not known yet, so that nothing can be read. */
  constructor(folder: string, header: () => string | undefined) {
    this.#folder = folder;
    this.#header = header;
  }

  /** The entries that have been written since the last call, worker by worker. */
  refresh(): Entry[] {
    const header = this.#header();
    if (header === undefined) return [];
    return indexesOf(this.#folder).flatMap((name) => this.#entriesOf(name, header));
  }

  #entriesOf(name: string, header: string): Entry[] {
    const path = join(this.#folder, `${name}.index`);
    const { bytes: start, lines: before, foreign } = this.#read.get(name) ?? UNREAD;
    if (foreign) return [];
    const bytes = bytesFrom(path, start);
    const whole = bytes.lastIndexOf(10) + 1;
    if (whole === 0) return [];
    const lines = bytes.toString("latin1", 0, whole).split("\n").slice(0, -1);
    const isForeign = before === 0 && lines[0] !== header;
    this.#read.set(name, { bytes: start + whole, lines: before + lines.length, foreign: isForeign });
    const damage = (line: number, what: string) =>
      this.damages.push({ where: `${path}: line ${line + 1}`, what });
    if (isForeign) {
      damage(
        0,
        `expected "${header}", found "${lines[0]!.slice(0, 80)}": it is of another grid, version or machine`,
      );
      return [];
    }
    return lines.flatMap((line, i) => {
      if (before + i === 0) return [];
      const entry = entryOf(line, join(this.#folder, name));
      if (!entry) damage(before + i, "it is damaged");
      return entry ?? [];
    });
  }
}

function entryOf(line: string, pack: string): Entry | undefined {
  const [, kind, id, offset, length, hash, seconds] = LINE.exec(line) ?? [];
  if (kind === undefined) return undefined;
  return {
    kind: kind as EntryKind,
    id: id!,
    pack,
    offset: Number(offset),
    length: Number(length),
    sha256: hash!,
    seconds: Number(seconds),
  };
}

/** The bytes of an entry, as they were written; else what is wrong with them. */
export function readEntry({ pack, offset, length, sha256: expected }: Entry): Buffer | Damage {
  const path = `${pack}.data`;
  const damage = (what: string): Damage => ({ where: `${path}: byte ${offset}`, what });
  let file: number;
  try {
    file = openSync(path, "r");
  } catch (error) {
    return damage((error as Error).message);
  }
  try {
    const bytes = Buffer.alloc(length);
    let done = 0;
    for (let got = -1; done < length && got !== 0; done += got) {
      got = readSync(file, bytes, done, length - done, offset + done);
    }
    if (done < length) return damage(`expected ${length} bytes, found ${done}`);
    return sha256(bytes) === expected ? bytes : damage("the checksum differs");
  } finally {
    closeSync(file);
  }
}

function indexesOf(folder: string): string[] {
  try {
    return readdirSync(folder)
      .filter((name) => name.endsWith(".index"))
      .map((name) => name.slice(0, -".index".length))
      .sort();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw error;
  }
}

/** Opened anew each time: that is when a shared file system looks what others have written. */
function bytesFrom(path: string, start: number): Buffer {
  const file = openSync(path, "r");
  try {
    const bytes = Buffer.alloc(Math.max(0, fstatSync(file).size - start));
    let done = 0;
    for (let got = -1; done < bytes.length && got !== 0; done += got) {
      got = readSync(file, bytes, done, bytes.length - done, start + done);
    }
    return bytes.subarray(0, done);
  } finally {
    closeSync(file);
  }
}
