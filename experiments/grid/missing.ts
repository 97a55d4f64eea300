import type { RunStore } from "./run-store.ts";

/** A cell that a run's results lack. */
export interface MissingCell {
  readonly key: string;
  /** The error, where it was tried. */
  readonly error?: string;
}

/** What has been read of cells: those that they asked for, or that they are missing. */
export type ReadCells = Map<string, readonly string[] | MissingCell>;

/**
 * What is missing of some cells and of those that they asked for. Reads them all, and their files.
 *
 * @param read - What earlier calls for the run have read, which is not read again.
 * @throws XpatchError for a cell or file that is damaged in all places where it is kept, or was kept with different contents
 */
export function missingOf(
  kept: RunStore,
  keys: readonly string[],
  read: ReadCells = new Map(),
): MissingCell[] {
  const seen = new Set(keys);
  const missing: MissingCell[] = [];
  // Grows as cells ask for others.
  for (const key of seen) {
    const found = read.get(key) ?? readCell(kept, key);
    read.set(key, found);
    if ("key" in found) missing.push(found);
    else for (const need of found) seen.add(need);
  }
  return missing;
}

function readCell(kept: RunStore, key: string): readonly string[] | MissingCell {
  const found = kept.cell(key);
  if (!found) {
    const error = kept.failure(key);
    return { key, ...(error !== undefined && { error }) };
  }
  kept.checkSame(key);
  for (const path of "refused" in found ? [] : found.files) {
    kept.checkSame(path, `the file ${path}`);
    kept.file(path);
  }
  return found.needs;
}
