import { type Permuted, permuted } from "./permutation.ts";
import { cosineDistances, type Points } from "./points.ts";
import { correlation, ranks } from "./rank-correlation.ts";

/**
 * Representational similarity analysis (Kriegeskorte et al. 2008): Spearman's correlation of the two sides' distances
 * between items, 1 − cosine, beside that of shuffled pairs. Item i of one side is item i of the other.
 *
 * @param actual - As of {@link permuted}.
 */
export function representationalSimilarity(a: Points, b: Points, actual?: number): Permuted {
  const n = a.length;
  if (b.length !== n || n < 3)
    throw new RangeError(`expected two sides of 3 items or more, found ${n} and ${b.length}`);
  const pairs = Array.from({ length: n }, (_, i) =>
    Array.from({ length: i }, (_, j) => [i, j] as const),
  ).flat();
  const rankedOf = (points: Points) => {
    const distances = cosineDistances(points);
    const square = distances.map(() => new Array<number>(n).fill(0));
    const ranked = ranks(pairs.map(([i, j]) => distances[i]![j]!));
    pairs.forEach(([i, j], p) => {
      square[i]![j] = ranked[p]!;
      square[j]![i] = ranked[p]!;
    });
    return square;
  };
  const [rankedA, rankedB] = [rankedOf(a), rankedOf(b)];
  const listA = pairs.map(([i, j]) => rankedA[i]![j]!);
  return permuted(
    n,
    (order) =>
      correlation(
        listA,
        pairs.map(([i, j]) => rankedB[order[i]!]![order[j]!]!),
      ),
    actual,
  );
}
