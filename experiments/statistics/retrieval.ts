import type { Points } from "./points.ts";
import { cosine } from "./vectors.ts";

/**
 * For each query the rank, from 1, of its own candidate (the one with its index) among all by cosine. Ties count
 * against it, so that equal vectors find nothing.
 */
export function retrievalRanks(queries: Points, candidates: Points): number[] {
  if (queries.length !== candidates.length) {
    throw new RangeError(
      `expected as many candidates as queries, found ${candidates.length} and ${queries.length}`,
    );
  }
  return queries.map((query, i) => {
    const own = cosine(query, candidates[i]!);
    return 1 + candidates.filter((other, j) => j !== i && cosine(query, other) >= own).length;
  });
}

/** The mean reciprocal rank of `n` candidates in random order. */
export function chanceReciprocalRank(n: number): number {
  return Array.from({ length: n }, (_, i) => 1 / (i + 1)).reduce((sum, x) => sum + x, 0) / n;
}
