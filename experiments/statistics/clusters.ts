import { studentFactor } from "./student.ts";

/** A part of the variance of a mean, and the degrees of freedom of its estimate. */
export interface Part {
  readonly variance: number;
  readonly degrees: number;
}

/** What each cluster adds to a mean beyond its share of it: `[seed][cluster]`, 0 in sum. */
export type Influence = readonly Float64Array[];

/**
 * The variance of a mean between its clusters (Liang and Zeger 1986), the seeds summed within each. Clusters that are put
 * beside those drawn, to draw the estimate away from 0, come as `extra`, a number of them and their sum of squares.
 */
export function betweenClusters(influence: Influence, extra = { count: 0, squares: 0 }): Part {
  const clusters = influence[0]!.length;
  let squares = extra.squares;
  for (let c = 0; c < clusters; c++) {
    let sum = 0;
    for (const row of influence) sum += row[c]!;
    squares += sum * sum;
  }
  const count = clusters + extra.count;
  return { variance: count > 1 ? (squares * count) / (count - 1) : 0, degrees: Math.max(1, clusters - 1) };
}

/**
 * What seeds that are common to all clusters add to that: the variance between their means less what the clusters' own
 * differences between seeds make of it (two-way clusters, Cameron, Gelbach and Miller 2011); not below 0. With one seed
 * nothing can be said of it.
 */
export function betweenSeeds(influence: Influence): Part[] {
  const seeds = influence.length;
  if (seeds < 2) return [];
  const totals = influence.map((row) => row.reduce((sum, x) => sum + x, 0));
  const total = totals.reduce((sum, x) => sum + x, 0) / seeds;
  let variance = totals.reduce((sum, x) => sum + (x - total) ** 2, 0);
  for (let c = 0; c < influence[0]!.length; c++) {
    const mean = influence.reduce((sum, row) => sum + row[c]! / seeds, 0);
    for (const row of influence) variance -= (row[c]! - mean) ** 2;
  }
  return variance > 0 ? [{ variance: (variance * seeds) / (seeds - 1), degrees: seeds - 1 }] : [];
}

/** The sum of parts, with Satterthwaite's degrees of freedom (1946). */
export function together(parts: readonly Part[]): Part {
  const variance = parts.reduce((sum, part) => sum + part.variance, 0);
  if (variance === 0) return { variance, degrees: Math.min(...parts.map(({ degrees }) => degrees)) };
  const spread = parts.reduce((sum, part) => sum + part.variance ** 2 / part.degrees, 0);
  return { variance, degrees: variance ** 2 / spread };
}

/** Half the width of the interval of a mean whose variance is estimated. */
export function halfWidth({ variance, degrees }: Part, level: number): number {
  return studentFactor(level, degrees) * Math.sqrt(variance);
}

/** Indices of different names, in the order in which they first come. */
export function indexOf(names: Iterable<string>): Map<string, number> {
  const index = new Map<string, number>();
  for (const name of names) if (!index.has(name)) index.set(name, index.size);
  return index;
}
