import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { GridStore, type StoredRun } from "./grid-store.ts";
import type { Damage } from "./pack-reader.ts";
import { isGone, readWorker } from "./presence.ts";

export interface RunStatus {
  readonly id: string;
  readonly label: string;
  readonly cells: number;
  readonly finished: number;
  /** By the model: as final as finished. */
  readonly refused: number;
  readonly failed: readonly { readonly name: string; readonly key: string; readonly error: string }[];
  /** Neither finished nor failed, those that are being computed among them. */
  readonly missing: number;
  /** Seconds that the finished cells took, of all workers together. */
  readonly seconds: number;
  readonly experiments: readonly {
    readonly name: string;
    readonly cells: number;
    readonly finished: number;
    readonly untestable?: string;
  }[];
  /** What could not be read. */
  readonly damages: readonly Damage[];
}

export interface WorkerStatus {
  readonly id: string;
  readonly host: string;
  readonly since: string;
  /** Goes up while it runs. */
  readonly beat: number;
  /** Keys of the cells that it has claimed. */
  readonly cells: readonly string[];
}

export interface GridStatus {
  readonly folder: string;
  readonly complete: boolean;
  readonly runs: readonly RunStatus[];
  readonly workers: readonly WorkerStatus[];
}

/** How far a grid is. Reads the indexes of all workers, and of failed cells what went wrong. */
export function gridStatus({ folder }: GridStore): GridStatus {
  // Of its own: what was read is let go, run by run.
  const store = GridStore.open(folder);
  const runs = store.runs.map((run) => {
    store.refresh(run.id);
    const status = runStatus(store, run);
    store.forget(run.id);
    return status;
  });
  const complete = runs.every(({ cells, finished, refused }) => finished + refused === cells);
  return { folder, complete, runs, workers: workersOf(store) };
}

function runStatus(store: GridStore, { id, label }: StoredRun): RunStatus {
  const kept = store.storeOf(id);
  const cells = store.cellsOf(id);
  const states = cells.map(({ key }) => kept.state(key));
  const count = (state: (typeof states)[number]) => states.filter((one) => one === state).length;
  const done = (place: number) => states[place] === "finished" || states[place] === "refused";
  return {
    id,
    label,
    cells: cells.length,
    finished: count("finished"),
    refused: count("refused"),
    missing: count("missing"),
    failed: cells.flatMap(({ name, key }, i) =>
      states[i] === "failed" ? [{ name, key, error: kept.failure(key) ?? "" }] : [],
    ),
    seconds: cells.reduce((sum, { key }) => sum + (kept.secondsOf(key) ?? 0), 0),
    experiments: store.experimentsOf(id).map(({ name, untestable, cells: places }) => ({
      name,
      cells: places.length,
      finished: places.filter(done).length,
      ...(untestable !== undefined && { untestable }),
    })),
    damages: kept.damages,
  };
}

/** Workers that say that they are there, and are not known to be gone, with what they have claimed. */
function workersOf(store: GridStore): WorkerStatus[] {
  const claimed = new Map<string, string[]>();
  for (const { id } of store.runs) {
    const { claimFolder } = store.storeOf(id);
    for (const [cell, owner] of ownersOf(claimFolder)) {
      const key = store.cellNamed(`${id}-${cell}`)?.key ?? cell;
      claimed.set(owner, [...(claimed.get(owner) ?? []), key]);
    }
  }
  return names(store.workerFolder)
    .filter((name) => name.endsWith(".json"))
    .flatMap((name) => readWorker(store.workerFolder, name.slice(0, -".json".length)) ?? [])
    .filter((worker) => !isGone(worker))
    .map(({ id, host, since, beat }) => ({ id, host, since, beat, cells: claimed.get(id) ?? [] }));
}

/** Who has claimed which cell: the claim with the highest number counts. */
function ownersOf(folder: string): Map<string, string> {
  const last = new Map<string, number>();
  for (const name of names(folder)) {
    const [, cell, generation] = /^([0-9a-f]{24})\.(\d+)$/.exec(name) ?? [];
    if (cell !== undefined) last.set(cell, Math.max(last.get(cell) ?? 0, Number(generation)));
  }
  const owners = new Map<string, string>();
  for (const [cell, generation] of last) {
    try {
      owners.set(cell, readFileSync(join(folder, `${cell}.${generation}`), "utf8"));
    } catch {
      // It has just been given up.
    }
  }
  return owners;
}

function names(folder: string): string[] {
  try {
    return readdirSync(folder).sort();
  } catch {
    return [];
  }
}
