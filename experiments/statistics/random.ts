/** Numbers from [0, 1), the same for the same seed: mulberry32 (Ettinger 2017, public domain). */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let x = state;
    x = Math.imul(x ^ (x >>> 15), x | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A standard normal number (Box and Muller 1958). */
export function normal(random: () => number): number {
  return Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
}

/** `count` of the values, in their order; all where there are no more. The same for the same seed. */
export function sample<T>(values: readonly T[], count: number, seed = 0): T[] {
  const random = seededRandom(seed);
  const ranked = values.map((_, index) => ({ index, rank: random() }));
  const kept = ranked
    .sort((a, b) => a.rank - b.rank)
    .slice(0, count)
    .map(({ index }) => index);
  return kept.sort((a, b) => a - b).map((index) => values[index]!);
}
