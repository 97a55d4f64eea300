import { betweenClusters, halfWidth, indexOf } from "./clusters.ts";
import { type Estimate, LEVEL } from "./estimate.ts";
import { seededRandom } from "./random.ts";
import { normalShareBelow, studentFactor } from "./student.ts";

const DRAWS = 2000;

/** The ends of what a statistic can be, and the level of its interval. */
export interface IntervalOptions {
  readonly range: readonly [number, number];
  readonly level?: number;
}

/**
 * A statistic of items, given by their indices, with the percentile bootstrap's interval (Efron and Tibshirani 1993,
 * chapter 13), whose tails are those of Student's for few inputs (Hesterberg 2015): for what is no mean. Inputs are drawn
 * anew with replacement, each with all its items.
 *
 * @param inputs - A name an item.
 */
export function resampled(
  inputs: readonly string[],
  statistic: (indices: readonly number[]) => number,
  { range: [least, most], level = LEVEL }: IntervalOptions,
): Estimate {
  if (inputs.length === 0) throw new RangeError("expected at least one item to draw from, found none");
  const groups = groupsOf(inputs);
  const found = { mean: statistic([...inputs.keys()]), items: groups.length, seeds: 1 };
  // Of one input nothing is known of the others.
  if (groups.length === 1) return { ...found, low: least, high: most };
  const random = seededRandom(0);
  const drawn = Array.from({ length: DRAWS }, () =>
    statistic(groups.flatMap(() => groups[Math.floor(random() * groups.length)]!)),
  ).sort((a, b) => a - b);
  const small = Math.sqrt(groups.length / (groups.length - 1));
  const tail = normalShareBelow(-small * studentFactor(level, groups.length - 1));
  return {
    ...found,
    low: drawn[Math.floor(tail * DRAWS)]!,
    high: drawn[Math.ceil((1 - tail) * DRAWS) - 1]!,
  };
}

/**
 * The mean of a value an item, with Student's interval on the variance between inputs. For values that spread between
 * the ends of `range`; shares, that may all be 0 or 1, are for `accuracy`.
 */
export function meanOverInputs(
  values: readonly number[],
  inputs: readonly string[],
  { range: [least, most], level = LEVEL }: IntervalOptions,
): Estimate {
  if (values.length === 0 || inputs.length !== values.length) {
    throw new RangeError(`expected an input for each value, found ${inputs.length} for ${values.length}`);
  }
  const index = indexOf(inputs);
  const centre = mean(values);
  const influence = new Float64Array(index.size);
  values.forEach((value, i) => {
    influence[index.get(inputs[i]!)!]! += (value - centre) / values.length;
  });
  // Of one input nothing is known of the others.
  const half = index.size === 1 ? most - least : halfWidth(betweenClusters([influence]), level);
  return {
    mean: centre,
    low: Math.max(least, centre - half),
    high: Math.min(most, centre + half),
    items: index.size,
    seeds: 1,
  };
}

export function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** The indices of each name. */
function groupsOf(names: readonly string[]): number[][] {
  const groups = new Map<string, number[]>();
  names.forEach((name, i) => {
    const group = groups.get(name);
    if (group) group.push(i);
    else groups.set(name, [i]);
  });
  return [...groups.values()];
}
