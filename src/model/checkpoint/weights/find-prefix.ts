import type { Weights } from "./weights.ts";

/**
 * The first of some spellings of a name's beginning under which `probe` is found; the first of all if none is, so that messages
 * name it. Which spelling a checkpoint has depends on the version that saved it.
 */
export function findPrefix(w: Weights, prefixes: readonly [string, ...string[]], probe: string): string {
  return prefixes.find((prefix) => w.has(prefix + probe)) ?? prefixes[0];
}
