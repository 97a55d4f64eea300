import type { Estimate } from "./bootstrap.ts";
import { seededRandom } from "./random.ts";

const DRAWS = 1000;

/**
 * A statistic of items, given by their indices, with the percentile bootstrap's 95 % interval (Efron and Tibshirani 1993,
 * chapter 13): `items` are drawn anew with replacement.
 */
export function resampled(
  items: number,
  statistic: (indices: readonly number[]) => number,
  seed = 0,
): Estimate {
  if (items === 0) throw new RangeError("expected at least one item to draw from, found none");
  const random = seededRandom(seed);
  const drawn = Array.from({ length: DRAWS }, () =>
    statistic(Array.from({ length: items }, () => Math.floor(random() * items))),
  ).sort((a, b) => a - b);
  return {
    mean: statistic(Array.from({ length: items }, (_, i) => i)),
    low: drawn[Math.floor(0.025 * DRAWS)]!,
    high: drawn[Math.ceil(0.975 * DRAWS) - 1]!,
    items,
    seeds: 1,
  };
}

/** The mean of a value an item. */
export function resampledMean(values: readonly number[]): Estimate {
  return resampled(values.length, (indices) => mean(indices.map((i) => values[i]!)));
}

export function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
