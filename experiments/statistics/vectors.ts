import { normal, seededRandom } from "./random.ts";

/** Sum of vectors times their weights. */
export function combine(...terms: readonly (readonly [number, Float32Array])[]): Float32Array {
  return terms[0]![1].map((_, i) => terms.reduce((sum, [weight, vector]) => sum + weight * vector[i]!, 0));
}

export function meanOf(vectors: readonly Float32Array[]): Float32Array {
  return combine(...vectors.map((vector) => [1 / vectors.length, vector] as const));
}

export function dot(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
}

export function norm(vector: ArrayLike<number>): number {
  return Math.sqrt(dot(vector, vector));
}

/** Cosine of the angle between two vectors; 0 where one of them is zero. */
export function cosine(a: ArrayLike<number>, b: ArrayLike<number>): number {
  const norms = norm(a) * norm(b);
  return norms === 0 ? 0 : dot(a, b) / norms;
}

/** A vector of random direction with the norm of another. */
export function randomLike(vector: Float32Array, seed: number): Float32Array {
  const gaussian = seededRandom(seed);
  const noise = vector.map(() => normal(gaussian));
  return combine([norm(vector) / norm(noise), noise]);
}
