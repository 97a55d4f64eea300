import { normal, seededRandom } from "./random.ts";
import { cosine, norm } from "./vectors.ts";

/** A vector a point. */
export type Points = readonly ArrayLike<number>[];

/** The points less their mean. */
export function centred(points: Points): Float64Array[] {
  const [first] = points;
  const mean = new Float64Array(first?.length ?? 0);
  for (const point of points) for (let i = 0; i < mean.length; i++) mean[i]! += point[i]! / points.length;
  return points.map((point) => Float64Array.from(point, (x, i) => x - mean[i]!));
}

/** Gaussian points of the same norms. */
export function randomPointsLike(points: Points, seed: number): Float64Array[] {
  const random = seededRandom(seed);
  return points.map((point) => {
    const noise = Float64Array.from(point, () => normal(random));
    const scale = norm(point) / norm(noise);
    return noise.map((x) => x * scale);
  });
}

/** 1 − cosine of every pair of points. */
export function cosineDistances(points: Points): number[][] {
  return points.map((a) => points.map((b) => (a === b ? 0 : 1 - cosine(a, b))));
}
