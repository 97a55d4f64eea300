import { seededRandom } from "./random.ts";

/**
 * Right and wrong answers behind an accuracy: for each task, for each seed, a character an item, `1` where it was right.
 * The seeds of a task answer the same items.
 */
export type Hits = readonly (readonly string[])[];

/** A mean with its 95 % confidence interval, and how much it rests on. */
export interface Estimate {
  readonly mean: number;
  readonly low: number;
  readonly high: number;
  /** Different items, over all tasks. */
  readonly items: number;
  readonly seeds: number;
}

const RESAMPLES = 1000;

/**
 * The accuracy, as a mean over the tasks of each one's mean over seeds and items. The interval is the percentile
 * bootstrap (Efron and Tibshirani 1993, chapter 13): items are drawn anew within each task, and seeds, which are common to
 * the tasks.
 */
export function accuracy(hits: Hits): Estimate {
  return bootstrap([hits], ([mean]) => mean!);
}

/** `accuracy(a) − accuracy(b)` where both answer the same items: the items are drawn anew for both alike. */
export function accuracyDifference(a: Hits, b: Hits): Estimate {
  return bootstrap([a, b], ([meanA, meanB]) => meanA! - meanB!);
}

/** By task, seed and item. */
type Table = readonly (readonly Uint8Array[])[];

function bootstrap(samples: readonly Hits[], statistic: (means: readonly number[]) => number): Estimate {
  const tables = samples.map((hits) => hits.map((seeds) => seeds.map((row) => Uint8Array.from(row, Number))));
  const sizes = tables[0]!.map((seeds) => seeds[0]!.length);
  if (tables.some((table) => table.some((seeds, task) => seeds.some((row) => row.length !== sizes[task])))) {
    throw new RangeError("expected all seeds of a task to answer the same items");
  }
  const all = sizes.map((size) => Uint32Array.from({ length: size }, (_, i) => i));
  const allSeeds = (table: Table) => table[0]!.map((_, seed) => seed);
  const once = tables.map((table) => meanOver(table, all, allSeeds(table)));
  const random = seededRandom(0);
  const draw = (n: number) => Math.floor(random() * n);
  const drawn = Array.from({ length: RESAMPLES }, () => {
    const items = all.map((indices) => indices.map(() => draw(indices.length)));
    const drawSeeds = (table: Table) => table[0]!.map(() => draw(table[0]!.length));
    return statistic(tables.map((table) => meanOver(table, items, drawSeeds(table))));
  }).sort((a, b) => a - b);
  return {
    mean: statistic(once),
    low: drawn[Math.floor(0.025 * RESAMPLES)]!,
    high: drawn[Math.ceil(0.975 * RESAMPLES) - 1]!,
    items: sizes.reduce((sum, size) => sum + size, 0),
    seeds: Math.max(...tables.map((table) => table[0]!.length)),
  };
}

function meanOver(table: Table, items: readonly Uint32Array[], seeds: readonly number[]): number {
  let total = 0;
  table.forEach((rows, task) => {
    let hits = 0;
    for (const seed of seeds) {
      const row = rows[seed]!;
      for (const item of items[task]!) hits += row[item]!;
    }
    total += hits / (seeds.length * items[task]!.length);
  });
  return total / table.length;
}
