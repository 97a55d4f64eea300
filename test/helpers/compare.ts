import { expect } from "vitest";
import { OMITTED } from "../../src/parity/thinned.ts";

/** Expects |a - b| <= atol + rtol * |b| everywhere (NaN equals NaN, infinities equal themselves). */
export function expectClose(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  { atol = 1e-5, rtol = 1e-5, label = "" } = {},
): void {
  expect(actual.length, `${label} length`).toBe(expected.length);
  for (let i = 0; i < actual.length; i++) {
    const a = actual[i]!;
    const b = expected[i]!;
    if (Object.is(a, b) || a === b || b === OMITTED) continue;
    if (!(Math.abs(a - b) <= atol + rtol * Math.abs(b))) {
      expect.fail(`${label} element ${i}: found ${a}, expected ${b} (atol ${atol}, rtol ${rtol})`);
    }
  }
}

export function largest(values: ArrayLike<number>): number {
  return Array.from(values).reduce((most, x) => Math.max(most, Math.abs(x)), 0);
}

/**
 * Logits of resumed and full runs: the same sums, but over other numbers of rows, so in another order. Of 300 random edits of
 * T5's embedding (the worst case: scores without scale) half differ by 1.4e-6 of the largest logit, one in a hundred by 6.5e-6
 * and one in some thousands by more than 1e-5; what runs alone has the same bits. A fault is a thousand times larger.
 * Where an edit takes most of an activation away, what it leaves carries the rounding of what it was made of: 1e-6 of the
 * largest of `unpatched` logits.
 */
export function expectSame(
  found: Float32Array,
  expected: Float32Array,
  label: string,
  unpatched: Float32Array = new Float32Array(),
): void {
  const atol = 3e-5 * largest(expected) + 1e-6 * largest(unpatched);
  expectClose(found, expected, { atol, rtol: 0, label });
}

/** A small seeded generator (mulberry32) of numbers in [-1, 1); for reproducible test data. */
export function seededNumbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * 2 - 1;
  };
}

export function randomArray(count: number, seed: number, scale = 1): Float32Array<ArrayBuffer> {
  const next = seededNumbers(seed);
  return Float32Array.from({ length: count }, () => next() * scale);
}
