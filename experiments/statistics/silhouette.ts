/**
 * How much nearer each point is to its own cluster than to the nearest other one, −1 to 1 (Rousseeuw 1987); 0 for a point
 * that is alone in its cluster.
 */
export function silhouettes(distances: readonly (readonly number[])[], labels: readonly string[]): number[] {
  const clusters = [...new Set(labels)];
  if (clusters.length < 2) throw new RangeError("expected at least two clusters, found one");
  return distances.map((row, i) => {
    const meanTo = (cluster: string) => {
      const others = row.filter((_, j) => j !== i && labels[j] === cluster);
      return others.reduce((sum, distance) => sum + distance, 0) / others.length;
    };
    const own = meanTo(labels[i]!);
    if (Number.isNaN(own)) return 0;
    const nearest = Math.min(...clusters.filter((cluster) => cluster !== labels[i]).map(meanTo));
    const larger = Math.max(own, nearest);
    return larger === 0 ? 0 : (nearest - own) / larger;
  });
}
