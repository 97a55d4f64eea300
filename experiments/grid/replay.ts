import { XpatchError } from "xpatch";
import type { Cell } from "../framework/cell.ts";
import type { CellRecord, CellStore } from "../framework/cell-store.ts";
import { Lab, type LabParts } from "../framework/lab.ts";
import { refusalOf } from "./grid-lab.ts";
import type { RunStore } from "./run-store.ts";

/**
 * A lab that computes nothing: cells come from those that a grid's workers have finished, in the order in which a single process
 * would have finished them. What the model refused is thrown again.
 */
export class ReplayLab extends Lab {
  readonly #kept: RunStore;
  readonly #visited: Map<string, CellRecord>;
  /** Paths of the files that go with the cells so far. */
  readonly files = new Set<string>();

  constructor(parts: Omit<LabParts, "store">, kept: RunStore) {
    const visited = new Map<string, CellRecord>();
    super({ ...parts, store: storeOf(visited, kept) });
    this.#visited = visited;
    this.#kept = kept;
  }

  override run<R>(cell: Cell<R>): Promise<R> {
    return Promise.resolve().then(() => this.#visit(cell.key).result as R);
  }

  #visit(key: string): CellRecord {
    const visited = this.#visited.get(key);
    if (visited) return visited;
    const found = this.#kept.cell(key);
    if (!found) throw new XpatchError(`the cell "${key}" is missing`);
    for (const need of found.needs) this.#visit(need);
    if ("refused" in found) throw refusalOf(found);
    const { needs: _, files, ...record } = found;
    for (const path of files) this.files.add(path);
    this.#visited.set(key, record);
    return record;
  }
}

function storeOf(visited: ReadonlyMap<string, CellRecord>, kept: RunStore): CellStore {
  const unused = () => {
    throw new XpatchError("a grid's cells are merged, not computed");
  };
  return {
    get records() {
      return [...visited.values()];
    },
    has: (key) => visited.has(key),
    get: (key) => visited.get(key),
    add: unused,
    keepFile: unused,
    file: (path) => new Uint8Array(kept.file(path)),
  };
}
