/** Floats that PyTorch makes at once (AVX2); how `torch.arange` rounds depends on it. */
const LANES = 8;

/**
 * Where the patches along one side of a picture lie in a tower's square of learned positions, as NaViT (Dehghani et al. 2023,
 * arXiv 2307.06304) has it: patch i of `count` is i / count of the way, which falls into one of `side` buckets. A fraction on
 * the border of two may fall into either, so this rounds as transformers 5 does, to float32 at each step: of as many patches
 * as buckets, a few share their neighbour's.
 */
export function fractionalPlaces(count: number, side: number): number[] {
  const borders = floatRange(1 / side, 1);
  const step = Math.fround(1 / count);
  const most = Math.fround(1 - 1e-6);
  return Array.from({ length: count }, (_, i) => {
    const at = Math.min(Math.fround(i * step), most);
    return borders.filter((border) => border <= at).length;
  });
}

/** `torch.arange(step, end, step)` in float32: whole pairs of vectors count from their own first value, the rest from the start. */
function floatRange(step: number, end: number): number[] {
  const count = Math.ceil((end - step) / step);
  const inVectors = count - (count % (2 * LANES));
  return Array.from({ length: count }, (_, i) => {
    if (i >= inVectors) return Math.fround(step + step * i);
    const lane = i % LANES;
    return Math.fround(Math.fround(step + step * (i - lane)) + step * lane);
  });
}
