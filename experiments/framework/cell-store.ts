import type { Params } from "./cell.ts";
import type { Cost } from "./cost.ts";

/** A finished cell. */
export interface CellRecord {
  readonly key: string;
  readonly kind: string;
  readonly params: Params;
  readonly result: unknown;
  /** Of this cell alone, without the cells that it asked for. */
  readonly cost: Cost;
  /** Absent where it is not known who computed the cell, as in what a grid was merged to. */
  readonly seconds?: number;
}

/** Where the finished cells of a run are, and the files that go with them. */
export interface CellStore {
  has(key: string): boolean;
  get(key: string): CellRecord | undefined;
  /** In the order in which they finished. */
  readonly records: readonly CellRecord[];
  /** Keeps a finished cell; returns it as a later process will read it. Throws FileError if the disk does not take it. */
  add(record: CellRecord): CellRecord;
  /** Keeps a file that a cell's result names, by its path in the run's folder. Throws FileError. */
  keepFile(path: string, bytes: Uint8Array): Promise<void>;
  /** Throws where there is none. */
  file(path: string): Uint8Array<ArrayBuffer>;
}
