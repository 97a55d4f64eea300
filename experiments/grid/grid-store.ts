import { existsSync, mkdirSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { XpatchError } from "xpatch";
import { decodeText } from "#src/platform/node-text";
import { writeWhole } from "#src/platform/node-write";
import type { CellRecord } from "../framework/cell-store.ts";
import { GRID_FORMAT, idOf, nameParts, plannedCell, VERSION } from "./cell-names.ts";
import { PackWriter } from "./pack-writer.ts";
import type { ExpandedPlan, PlannedCell, PlannedRun, RunCells } from "./plan.ts";
import { workerId } from "./presence.ts";
import { type CellState, type FailedCell, RunStore } from "./run-store.ts";

/** A run, and how many cells it has. */
export interface StoredRun extends PlannedRun {
  readonly count: number;
}

/** What `grid.json` holds. */
interface GridFile {
  readonly format: number;
  readonly version: string;
  readonly folder: string;
  readonly runs: readonly StoredRun[];
}

/** A grid's folder, which workers on many machines share: the plan, and what has been finished of it. */
export class GridStore {
  readonly folder: string;
  /** Absolute folder of the plan, which paths in it are relative to. */
  readonly planFolder: string;
  readonly runs: readonly StoredRun[];
  readonly #cells = new Map<string, RunCells & { readonly byName: ReadonlyMap<string, PlannedCell> }>();
  readonly #stores = new Map<string, RunStore>();

  private constructor(folder: string, { folder: planFolder, runs }: GridFile) {
    this.folder = folder;
    this.planFolder = planFolder;
    this.runs = runs;
  }

  /**
   * Writes a plan into a folder that is empty or not there; where the same plan is there already, nothing. Throws XpatchError
   * for a folder of other things, or of another plan.
   */
  static async create(
    folder: string,
    { version, folder: planFolder, runs }: ExpandedPlan,
  ): Promise<GridStore> {
    const stored = runs.map(
      ({ experiments: _, keys, ...run }): StoredRun => ({ ...run, count: keys.length }),
    );
    const file: GridFile = { format: GRID_FORMAT, version, folder: planFolder, runs: stored };
    const text = `${JSON.stringify(file, null, 2)}\n`;
    const path = join(folder, "grid.json");
    if (existsSync(path)) {
      const same =
        readFileSync(path, "utf8") === text &&
        runs.every((run) => readCells(folder, run.id) === cellsText(run));
      if (same) return GridStore.open(folder);
      throw new XpatchError(
        `${folder} holds the grid of another plan, or of this one as it was before; take another folder`,
      );
    }
    if (!isOurs(folder)) {
      throw new XpatchError(
        `${folder}: expected an empty folder or that of a grid, found other things in it`,
      );
    }
    for (const run of runs) {
      mkdirSync(join(folder, "runs", run.id, "claims"), { recursive: true });
      await writeWhole(cellsPath(folder, run.id), cellsText(run));
    }
    mkdirSync(join(folder, "workers"), { recursive: true });
    // Last: a folder with a plan has all of it.
    await writeWhole(path, text);
    return GridStore.open(folder);
  }

  /** Throws XpatchError for a folder that is no grid's, and for a grid of another version. */
  static open(folder: string): GridStore {
    const path = join(folder, "grid.json");
    if (!existsSync(path)) {
      throw new XpatchError(
        `${folder} is not the folder of a grid: there is no grid.json in it; "xpatch grid plan" makes one`,
      );
    }
    const file = parse<GridFile>(decodeText(readFileSync(path), path), path);
    if (file.format !== GRID_FORMAT || file.version !== VERSION) {
      throw new XpatchError(
        `${path} is of another version of xpatch: expected version ${VERSION} and format ${GRID_FORMAT}, found ${file.version} and ${file.format}; its cells could hold something else`,
      );
    }
    return new GridStore(folder, file);
  }

  /** Throws XpatchError where there is none. */
  run(id: string): StoredRun {
    const found = this.runs.find((run) => run.id === id);
    if (found) return found;
    throw new XpatchError(`${this.folder}: there is no run ${id}`);
  }

  /** The cells of a run, in the order in which one process computes them. */
  cellsOf(run: string): readonly PlannedCell[] {
    return [...this.#cellsOf(run).byName.values()];
  }

  /** The experiments of a run. */
  experimentsOf(run: string): RunCells["experiments"] {
    return this.#cellsOf(run).experiments;
  }

  /** A planned cell by its name; undefined where there is none, as of those that only other cells ask for. */
  cellNamed(name: string): PlannedCell | undefined {
    const run = nameParts(name)?.run;
    return run === undefined ? undefined : this.#cellsOf(run).byName.get(name);
  }

  /** The same. Throws XpatchError where there is none of that name. */
  cell(name: string): PlannedCell {
    const found = this.cellNamed(name);
    if (found) return found;
    throw new XpatchError(`${this.folder}: there is no cell ${name}`);
  }

  /** What is kept of a run. */
  storeOf(run: string): RunStore {
    const known = this.#stores.get(run);
    if (known) return known;
    const store = new RunStore(join(this.folder, "runs", this.run(run).id), run);
    this.#stores.set(run, store);
    return store;
  }

  /** Frees what is in memory of a run: of a million cells it is a gigabyte. */
  forget(run: string): void {
    this.#stores.delete(run);
    this.#cells.delete(run);
  }

  /** Sees what other processes have finished since, of one run or of all. */
  refresh(run?: string): void {
    for (const { id } of run === undefined ? this.runs : [this.run(run)]) this.storeOf(id).refresh();
  }

  /** Of a cell, as of the last {@link refresh}. */
  state(name: string): CellState {
    const { run, key } = this.cell(name);
    return this.storeOf(run).state(key);
  }

  /** A finished cell; undefined where it is not, or is refused. Throws XpatchError where it is damaged. */
  record(name: string): CellRecord | undefined {
    const { run, key } = this.cell(name);
    const found = this.storeOf(run).cell(key);
    return found && "result" in found ? found : undefined;
  }

  /** The last error of a cell that failed. */
  failure(name: string): string | undefined {
    const { run, key } = this.cell(name);
    return this.storeOf(run).failure(key);
  }

  /**
   * Writes down that cells failed whose processes could not do so themselves: they were killed. Nothing of runs that no worker has
   * begun.
   */
  fail(failures: readonly { readonly name: string; readonly error: string }[]): void {
    for (const [run, list] of groupBy(failures, ({ name }) => this.cell(name).run)) {
      const kept = this.storeOf(run);
      if (kept.header === undefined) continue;
      const pack = new PackWriter(kept.packFolder, workerId(), kept.header);
      for (const { name, error } of list) {
        const failed: FailedCell = { key: this.cell(name).key, error };
        pack.add("failed", idOf(run, failed.key), Buffer.from(JSON.stringify(failed)), 0);
      }
      pack.close();
    }
  }

  /** Where workers say that they are there. */
  get workerFolder(): string {
    return join(this.folder, "workers");
  }

  #cellsOf(run: string) {
    const known = this.#cells.get(run);
    if (known) return known;
    const path = cellsPath(this.folder, this.run(run).id);
    const { experiments, keys } = parse<RunCells>(readFileSync(path, "utf8"), path);
    const planned = keys.map((key) => plannedCell(run, key));
    const cells = { experiments, keys, byName: new Map(planned.map((cell) => [cell.name, cell])) };
    this.#cells.set(run, cells);
    return cells;
  }
}

function groupBy<T>(list: readonly T[], keyOf: (each: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const each of list) groups.set(keyOf(each), [...(groups.get(keyOf(each)) ?? []), each]);
  return groups;
}

/** Whether a folder has nothing in it but what a plan that was broken off has written. */
function isOurs(folder: string): boolean {
  if (!existsSync(folder)) return true;
  const names = readdirSync(folder);
  if (names.some((name) => !["runs", "workers"].includes(name))) return false;
  return (
    !names.includes("runs") || readdirSync(join(folder, "runs")).every((name) => /^[0-9a-f]{16}$/.test(name))
  );
}

function cellsPath(folder: string, run: string): string {
  return join(folder, "runs", run, "cells.json");
}

function cellsText({ experiments, keys }: RunCells): string {
  return `${JSON.stringify({ experiments, keys })}\n`;
}

function readCells(folder: string, run: string): string | undefined {
  const path = cellsPath(folder, run);
  return existsSync(path) ? readFileSync(path, "utf8") : undefined;
}

function parse<T>(text: string, path: string): T {
  try {
    return JSON.parse(text) as T;
  } catch (cause) {
    throw new XpatchError(`${path} is damaged: ${(cause as Error).message}`, { cause });
  }
}
