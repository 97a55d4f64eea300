import { normal, seededRandom } from "./random.ts";

/** Sum of vectors times their weights. */
export function combine(...terms: readonly (readonly [number, Float32Array])[]): Float32Array {
  return terms[0]![1].map((_, i) => terms.reduce((sum, [weight, vector]) => sum + weight * vector[i]!, 0));
}

export function meanOf(vectors: readonly Float32Array[]): Float32Array {
  return combine(...vectors.map((vector) => [1 / vectors.length, vector] as const));
}

export function dot(a: Float32Array, b: Float32Array): number {
  return a.reduce((sum, x, i) => sum + x * b[i]!, 0);
}

export function norm(vector: Float32Array): number {
  return Math.hypot(...vector);
}

/** 0 where one of them is zero. */
export function cosine(a: Float32Array, b: Float32Array): number {
  const norms = norm(a) * norm(b);
  return norms === 0 ? 0 : dot(a, b) / norms;
}

/** A vector of random direction with the norm of another. */
export function randomLike(vector: Float32Array, seed: number): Float32Array {
  const gaussian = seededRandom(seed);
  const noise = vector.map(() => normal(gaussian));
  return combine([norm(vector) / norm(noise), noise]);
}
