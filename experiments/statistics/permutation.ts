import { seededRandom } from "./random.ts";

const DRAWS = 500;

/** A statistic beside its distribution when items are paired at random. */
export interface Permuted {
  readonly value: number;
  /** Middle 95 % of the values of random pairings. */
  readonly low: number;
  readonly high: number;
  /** Share of pairings, the actual one among them, that give at least `value`: a one-sided p. */
  readonly p: number;
  readonly items: number;
}

/**
 * A permutation test (Good 2005): `statistic` of the order in which the second side's items are taken.
 *
 * @param actual - What is held against random pairings. By default the value of the items in their order.
 */
export function permuted(
  items: number,
  statistic: (order: readonly number[]) => number,
  actual?: number,
): Permuted {
  const random = seededRandom(0);
  const inOrder = Array.from({ length: items }, (_, i) => i);
  const value = actual ?? statistic(inOrder);
  const drawn = Array.from({ length: DRAWS }, () => statistic(shuffled(inOrder, random))).sort(
    (a, b) => a - b,
  );
  return {
    value,
    low: drawn[Math.floor(0.025 * DRAWS)]!,
    high: drawn[Math.ceil(0.975 * DRAWS) - 1]!,
    p: (1 + drawn.filter((other) => other >= value).length) / (1 + DRAWS),
    items,
  };
}

/** The values in random order (Fisher and Yates 1938). */
export function shuffled<T>(values: readonly T[], random: () => number): T[] {
  const list = [...values];
  for (let i = list.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [list[i], list[j]] = [list[j]!, list[i]!];
  }
  return list;
}
