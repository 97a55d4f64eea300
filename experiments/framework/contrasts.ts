import { accuracy, accuracyDifference, type Hits } from "../statistics/accuracy.ts";
import type { Estimate } from "../statistics/estimate.ts";
import type { Permuted } from "../statistics/permutation.ts";
import { studentFactor } from "../statistics/student.ts";
import type { Contrast } from "./rule.ts";

/** Computed once a level. */
export function contrast(at: (level: number) => Estimate, of?: string): Contrast {
  const known = new Map<number, Estimate>();
  return {
    of,
    at(level) {
      const estimate = known.get(level) ?? at(level);
      known.set(level, estimate);
      return estimate;
    },
  };
}

/** The accuracy of one method less that of another, which answered the same items. */
export function difference(a: Hits, b: Hits, of?: string): Contrast {
  return contrast((level) => accuracyDifference(a, b, level), of);
}

/**
 * The same where the other one is a control: the interval of the accuracy by itself has to leave out the control's as
 * well, so that the lower of both ends counts. Without the control nothing can be said.
 */
export function aboveControl(a: Hits, control: Hits | undefined, of?: string): Contrast[] {
  if (!control) return [];
  const { mean } = accuracy(control);
  const at = (level: number) => {
    const paired = accuracyDifference(a, control, level);
    return { ...paired, low: Math.min(paired.low, accuracy(a, level).low - mean) };
  };
  return [contrast(at, of)];
}

const MIDDLE_95 = 2 * studentFactor(0.95, Number.POSITIVE_INFINITY);

/**
 * How far a similarity is above that of shuffled pairs, as a part of what these leave to 1 (CKA's are near 1 for few
 * items), where it is taken to vary as they do; it is above them only if so few of them reach as much.
 */
export function aboveShuffled({ value, low, high, p, items }: Permuted, of?: string): Contrast {
  const middle = (low + high) / 2;
  const left = 1 - middle;
  return contrast((level) => {
    if (left <= 0) return { mean: 0, low: -1, high: 1, items, seeds: 1 };
    const mean = (value - middle) / left;
    const half = (studentFactor(level, Number.POSITIVE_INFINITY) * (high - low)) / MIDDLE_95 / left;
    const reached = p > (1 - level) / 2;
    return {
      mean,
      low: reached ? Math.min(0, mean - half) : mean - half,
      high: mean + half,
      items,
      seeds: 1,
    };
  }, of);
}
