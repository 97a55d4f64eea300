import { normal, seededRandom } from "./random.ts";

/** A vector a point. */
export type Points = readonly ArrayLike<number>[];

export function dot(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
}

/** Cosine of the angle between two vectors; 0 where one of them is zero. */
export function cosine(a: ArrayLike<number>, b: ArrayLike<number>): number {
  const norms = Math.sqrt(dot(a, a) * dot(b, b));
  return norms === 0 ? 0 : dot(a, b) / norms;
}

/** The points less their mean. */
export function centred(points: Points): Float64Array[] {
  const [first] = points;
  const mean = new Float64Array(first?.length ?? 0);
  for (const point of points) for (let i = 0; i < mean.length; i++) mean[i]! += point[i]! / points.length;
  return points.map((point) => Float64Array.from(point, (x, i) => x - mean[i]!));
}

/** Gaussian vectors of the same norms. */
export function randomLike(points: Points, seed: number): Float64Array[] {
  const random = seededRandom(seed);
  return points.map((point) => {
    const noise = Float64Array.from(point, () => normal(random));
    const scale = Math.sqrt(dot(point, point) / dot(noise, noise));
    return noise.map((x) => x * scale);
  });
}

/** 1 − cosine of every pair of points. */
export function cosineDistances(points: Points): number[][] {
  return points.map((a) => points.map((b) => (a === b ? 0 : 1 - cosine(a, b))));
}
