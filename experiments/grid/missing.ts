import type { RunStore } from "./run-store.ts";

/** A cell that a run's results lack. */
export interface MissingCell {
  readonly key: string;
  /** The error, where it was tried. */
  readonly error?: string;
}

/**
 * What is missing of some cells and of those that they asked for. Reads them all.
 *
 * @throws XpatchError for a cell or file that is damaged in all places where it is kept, or was kept with different contents
 */
export function missingOf(kept: RunStore, keys: readonly string[]): MissingCell[] {
  const seen = new Set<string>();
  const missing: MissingCell[] = [];
  const visit = (key: string) => {
    if (seen.has(key)) return;
    seen.add(key);
    const found = kept.cell(key);
    if (!found) {
      const error = kept.failure(key);
      missing.push({ key, ...(error !== undefined && { error }) });
      return;
    }
    kept.checkSame(key);
    for (const need of found.needs) visit(need);
    if ("refused" in found) return;
    for (const path of found.files) {
      kept.checkSame(path, `the file ${path}`);
      kept.file(path);
    }
  };
  for (const key of keys) visit(key);
  return missing;
}
