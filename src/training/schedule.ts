import { ArgumentError } from "../errors.ts";

/** Warm-up and end of a {@link cosineSchedule}. */
export interface CosineOptions {
  /** Steps over which the rate rises from 0, in a line. Default none. */
  readonly warmUp?: number;
  /** What is left at the end, as a part of the rate. Default 0. */
  readonly least?: number;
}

/**
 * The part of the learning rate for a step (from 0) of `steps`: a linear warm-up, then half a cosine wave down (Loshchilov and
 * Hutter 2017, arXiv 1608.03983), as `get_cosine_schedule_with_warmup` of transformers has it.
 */
export function cosineSchedule(
  step: number,
  steps: number,
  { warmUp = 0, least = 0 }: CosineOptions = {},
): number {
  if (!(Number.isInteger(warmUp) && warmUp >= 0 && warmUp < steps)) {
    throw new ArgumentError(`cosineSchedule: expected a warm-up of 0 to ${steps - 1} steps, found ${warmUp}`);
  }
  if (step < warmUp) return step / warmUp;
  const progress = Math.min(1, (step - warmUp) / Math.max(1, steps - warmUp));
  return least + (1 - least) * 0.5 * (1 + Math.cos(Math.PI * progress));
}
