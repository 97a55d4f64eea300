/** A mean with its confidence interval, and how much it rests on. */
export interface Estimate {
  readonly mean: number;
  readonly low: number;
  readonly high: number;
  /** Different inputs, over all tasks: what was drawn independently. Tasks that share an input count it once. */
  readonly items: number;
  readonly seeds: number;
}

/** The level of intervals unless another is asked for. */
export const LEVEL = 0.95;

export function shifted({ mean, low, high, ...rest }: Estimate, by: number): Estimate {
  return { mean: mean + by, low: low + by, high: high + by, ...rest };
}

/** The estimate of minus the quantity. */
export function negated({ mean, low, high, ...rest }: Estimate): Estimate {
  return { mean: 0 - mean, low: 0 - high, high: 0 - low, ...rest };
}
