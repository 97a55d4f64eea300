import { pause } from "./abortable.ts";
import type { GridStore } from "./grid-store.ts";
import type { PlannedCell } from "./plan.ts";
import { type Shard, shardOf } from "./shard.ts";
import type { GridWorker } from "./worker.ts";

export interface ShardProgress {
  /** The key of the cell that is next. */
  readonly cell: string | undefined;
  readonly done: number;
  readonly total: number;
  readonly failed: number;
  /** Whether other workers are waited for. */
  readonly waiting: boolean;
}

export interface ShardResult {
  readonly cells: number;
  /** Computed here, refused ones among them. */
  readonly computed: number;
  readonly refused: number;
  readonly failed: readonly { readonly cell: PlannedCell; readonly error: string }[];
}

export interface ShardOptions {
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: ShardProgress) => void;
}

/** How long to wait for other workers before looking again, at first and at most, in milliseconds. */
const FIRST_LOOK = 100;
const LAST_LOOK = 3000;

/**
 * Computes the cells of a shard that nobody has finished, those of one model after the other. A cell that another worker computes,
 * or that asks for one that does, is put off until nothing else is left; each one that fails is tried once.
 */
export async function runShard(
  store: GridStore,
  worker: GridWorker,
  shard: Pick<Shard, "index" | "count">,
  { signal, onProgress = () => {} }: ShardOptions = {},
): Promise<ShardResult> {
  const places = shardOf(
    store.runs.map(({ count }) => count),
    shard,
  );
  const total = places.reduce((sum, list) => sum + list.length, 0);
  const failed: { cell: PlannedCell; error: string }[] = [];
  let [done, computed, refused] = [0, 0, 0];
  const progress = (cell?: string, waiting = false) =>
    onProgress({ cell, done, total, failed: failed.length, waiting });
  for (const [r, { id }] of store.runs.entries()) {
    if (places[r]!.length === 0) continue;
    const cells = store.cellsOf(id);
    store.refresh(id);
    let left = places[r]!.map((place) => cells[place]!);
    for (let wait = FIRST_LOOK; left.length > 0; ) {
      const busy: PlannedCell[] = [];
      for (const cell of left) {
        progress(cell.key);
        const outcome = await worker.attempt(cell.name, { retry: false, ...(signal && { signal }) });
        if (!outcome) {
          busy.push(cell);
          continue;
        }
        done++;
        if (outcome.state !== "already") computed++;
        if (outcome.state === "refused") refused++;
        if (outcome.state === "failed") failed.push({ cell, error: outcome.error! });
      }
      if (busy.length === left.length) {
        progress(busy[0]!.key, true);
        await pause(wait, signal);
        store.refresh(id);
        wait = Math.min(2 * wait, LAST_LOOK);
      } else {
        wait = FIRST_LOOK;
      }
      left = busy;
    }
  }
  worker.flush();
  progress();
  return { cells: total, computed, refused, failed };
}
