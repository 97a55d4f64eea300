import { type Permuted, permuted } from "./permutation.ts";
import { centred, type Points } from "./points.ts";
import { dot } from "./vectors.ts";

/**
 * Linear centred kernel alignment (Kornblith et al. 2019), 0 to 1, beside that of shuffled pairs: with fewer items than
 * features it is well above 0 for anything, so only the comparison tells. Item i of one side is item i of the other.
 *
 * @param actual - As of {@link permuted}.
 */
export function kernelAlignment(a: Points, b: Points, actual?: number): Permuted {
  const n = a.length;
  if (b.length !== n || n < 2)
    throw new RangeError(`expected two sides of 2 items or more, found ${n} and ${b.length}`);
  const gram = (points: Points) => {
    const moved = centred(points);
    return moved.map((x) => moved.map((y) => dot(x, y)));
  };
  const [gramA, gramB] = [gram(a), gram(b)];
  const norm = (rows: readonly (readonly number[])[]) =>
    Math.sqrt(rows.reduce((sum, row) => sum + dot(row, row), 0));
  const norms = norm(gramA) * norm(gramB);
  const statistic = (order: readonly number[]) => {
    let sum = 0;
    gramA.forEach((row, i) => {
      const other = gramB[order[i]!]!;
      for (let j = 0; j < n; j++) sum += row[j]! * other[order[j]!]!;
    });
    return norms === 0 ? 0 : sum / norms;
  };
  return permuted(n, statistic, actual);
}
