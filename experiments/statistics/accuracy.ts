import { betweenClusters, betweenSeeds, type Influence, indexOf, type Part, together } from "./clusters.ts";
import { type Estimate, LEVEL } from "./estimate.ts";
import { studentFactor } from "./student.ts";

/** Right and wrong answers of a task. */
export interface TaskHits {
  /** What each item is, whatever the task: items of several tasks with one input are one draw. */
  readonly inputs: readonly string[];
  /** For each seed, a value an item: a character, `1` where the answer was right, or a share from 0 to 1. */
  readonly seeds: readonly (string | readonly number[])[];
}

/** Of each task. All have the same number of seeds. */
export type Hits = readonly TaskHits[];

/**
 * Inputs that are thought beside those drawn, half of them right and half wrong in every task and seed, where the variance
 * is estimated: without them it would be 0 where no answer, or every one, is right. So few keep the simulated coverage of
 * test/experiments/statistics/coverage.test.ts.
 */
const PRIOR_INPUTS = 0.25;

/**
 * The accuracy, as a mean over the tasks of each one's mean over seeds and items, and Wilson's interval (1927) on the
 * effective number of items: the one with which a share would vary as the accuracy does between inputs, each with all
 * its tasks and seeds, and between seeds. Seeds widen the interval only where there are two or more.
 */
export function accuracy(hits: Hits, level = LEVEL): Estimate {
  return estimated(pooled(hits, indexOfInputs(hits)), level);
}

/**
 * `accuracy(a) − accuracy(b)` where both answer the same items, with the interval that the two intervals and the
 * correlation of the two accuracies over inputs and seeds give (MOVER, Zou and Donner 2008; Newcombe 1998, method 10).
 * Seeds are paired where both sides have as many; else each side's add to the variance by themselves.
 */
export function accuracyDifference(a: Hits, b: Hits, level = LEVEL): Estimate {
  const same =
    a.length === b.length &&
    a.every(({ inputs }, t) => {
      const other = b[t]!.inputs;
      return inputs.length === other.length && inputs.every((input, i) => input === other[i]);
    });
  if (!same) throw new RangeError("expected both sides of a difference to answer the same items");
  const index = indexOfInputs(a);
  const [one, other] = [pooled(a, index), pooled(b, index)];
  const [first, second] = [estimated(one, level), estimated(other, level)];
  const covariance = (one.part.variance + other.part.variance - varianceOfDifference(one, other)) / 2;
  const bound = Math.sqrt(one.part.variance * other.part.variance);
  const r = Math.max(-1, Math.min(1, covariance / bound));
  const mean = first.mean - second.mean;
  const apart = (x: number, y: number) => Math.sqrt(Math.max(0, x * x - 2 * r * x * y + y * y));
  return {
    mean,
    low: Math.max(-1, mean - apart(first.mean - first.low, second.high - second.mean)),
    high: Math.min(1, mean + apart(first.high - first.mean, second.mean - second.low)),
    items: index.size,
    seeds: Math.max(first.seeds, second.seeds),
  };
}

/** A mean, and how it varies. */
interface Pooled {
  readonly mean: number;
  /** Drawn towards a half by the inputs that are thought beside those drawn. */
  readonly drawn: number;
  readonly influence: Influence;
  /** The influence that an input would have which is right, or wrong, in everything. */
  readonly right: number;
  readonly wrong: number;
  readonly part: Part;
}

function pooled(hits: Hits, index: ReadonlyMap<string, number>): Pooled {
  const rows = hits.map(({ inputs, seeds }) => seeds.map((row) => valuesOf(row, inputs.length)));
  const seeds = rows[0]?.length ?? 0;
  if (seeds === 0 || hits.some(({ inputs }, t) => inputs.length === 0 || rows[t]!.length !== seeds)) {
    throw new RangeError("expected tasks with items, and each with the same number of seeds");
  }
  const means = rows.map((table) => meanOf(table.map(meanOf)));
  const mean = meanOf(means);
  const share = PRIOR_INPUTS / (index.size + PRIOR_INPUTS);
  const influence = Array.from({ length: seeds }, () => new Float64Array(index.size));
  let [right, wrong] = [0, 0];
  hits.forEach(({ inputs }, t) => {
    const { length } = inputs;
    // A task of one item does not vary about its own mean.
    const centre = (((length - 1) * means[t]! + mean) / length) * (1 - share) + share / 2;
    const weight = (1 - share) / (hits.length * length * seeds);
    const places = inputs.map((input) => index.get(input)!);
    rows[t]!.forEach((row, s) => {
      const ofSeed = influence[s]!;
      for (let i = 0; i < length; i++) ofSeed[places[i]!]! += weight * (row[i]! - centre);
    });
    right += ((1 - centre) * (1 - share)) / (hits.length * index.size);
    wrong -= (centre * (1 - share)) / (hits.length * index.size);
  });
  const squares = (PRIOR_INPUTS / 2) * (right ** 2 + wrong ** 2);
  const between = betweenClusters(influence, { count: PRIOR_INPUTS, squares });
  const part = together([between, ...betweenSeeds(influence)]);
  return { mean, drawn: mean * (1 - share) + share / 2, influence, right, wrong, part };
}

function varianceOfDifference(a: Pooled, b: Pooled): number {
  const paired = a.influence.length === b.influence.length;
  const [one, other] = paired ? [a.influence, b.influence] : [[summed(a.influence)], [summed(b.influence)]];
  const influence = one.map((row, s) => row.map((x, c) => x - other[s]![c]!));
  const squares = [a.right, a.wrong].flatMap((x) => [b.right, b.wrong].map((y) => (x - y) ** 2));
  const between = betweenClusters(influence, {
    count: PRIOR_INPUTS,
    squares: (PRIOR_INPUTS / 4) * squares.reduce((sum, x) => sum + x, 0),
  });
  const seeds = paired ? betweenSeeds(influence) : [a, b].flatMap((side) => betweenSeeds(side.influence));
  return together([between, ...seeds]).variance;
}

function estimated({ mean, drawn, influence, part }: Pooled, level: number): Estimate {
  const effective = (drawn * (1 - drawn)) / part.variance;
  const k = studentFactor(level, part.degrees) ** 2 / effective;
  const middle = (mean + k / 2) / (1 + k);
  const half = Math.sqrt(k * (mean * (1 - mean) + k / 4)) / (1 + k);
  return {
    mean,
    // At the edges these are 0 and 1 but for rounding.
    low: mean === 0 ? 0 : Math.max(0, middle - half),
    high: mean === 1 ? 1 : Math.min(1, middle + half),
    items: influence[0]!.length,
    seeds: influence.length,
  };
}

function summed(influence: Influence): Float64Array {
  return influence[0]!.map((_, c) => influence.reduce((sum, row) => sum + row[c]!, 0));
}

function indexOfInputs(hits: Hits): Map<string, number> {
  return indexOf(hits.flatMap(({ inputs }) => inputs));
}

function valuesOf(row: string | readonly number[], length: number): Float64Array {
  const values = typeof row === "string" ? Float64Array.from(row, Number) : Float64Array.from(row);
  if (values.length !== length || values.some((x) => !(x >= 0 && x <= 1))) {
    throw new RangeError(`expected a value from 0 to 1 for each of ${length} items, found ${row}`);
  }
  return values;
}

function meanOf(values: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i]!;
  return sum / values.length;
}
