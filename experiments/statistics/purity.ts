export interface Purity {
  /** For each point the share of its nearest neighbours that have its label. */
  readonly values: readonly number[];
  /** What neighbours drawn at random would have. */
  readonly chance: number;
}

/** Nearest-neighbour purity: `k` neighbours of each point among those that `allowed` lets count for it. */
export function neighbourPurity(
  distances: readonly (readonly number[])[],
  labels: readonly string[],
  k: number,
  allowed: (point: number, other: number) => boolean = () => true,
): Purity {
  const scored = distances.map((row, i) => {
    const others = row
      .map((distance, j) => ({ distance, same: labels[j] === labels[i] ? 1 : 0, j }))
      .filter(({ j }) => j !== i && allowed(i, j))
      .sort((a, b) => a.distance - b.distance || a.j - b.j);
    const share = (list: typeof others) => list.reduce((sum, { same }) => sum + same, 0) / list.length;
    if (others.length === 0) throw new RangeError(`expected point ${i} to have a neighbour, found none`);
    return { value: share(others.slice(0, k)), chance: share(others) };
  });
  return {
    values: scored.map(({ value }) => value),
    chance: scored.reduce((sum, { chance }) => sum + chance, 0) / scored.length,
  };
}
