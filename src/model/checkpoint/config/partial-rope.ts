import { CheckpointError } from "../../../errors.ts";

/**
 * How many dimensions of a head RoPE turns, the first ones: a share of them, rounded down. Throws CheckpointError for a share that
 * makes no even number of them.
 */
export function rotaryDimOf(headDim: number, share: number, where: string): number {
  const rotaryDim = Math.trunc(headDim * share);
  if (rotaryDim >= 2 && rotaryDim <= headDim && rotaryDim % 2 === 0) return rotaryDim;
  throw new CheckpointError(
    `${where}: expected partial_rotary_factor to make an even number of 2 to ${headDim} of the dimensions of a head ` +
      `(hidden_size over num_attention_heads, or head_dim), found ${share}`,
  );
}
