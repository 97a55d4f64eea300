import { OMITTED } from "./thinned.ts";

/** Values a and b agree where |a - b| <= atol + rtol * |b|, b being the golden. */
export interface Tolerance {
  readonly atol: number;
  readonly rtol: number;
}

/** Numbers compared with goldens. */
export interface TensorCheck {
  readonly kind: "tensor";
  readonly name: string;
  readonly elements: number;
  readonly maxAbs: number;
  /** ‖a − b‖ / ‖b‖ */
  readonly relativeNorm: number;
  readonly cosine: number;
  readonly tolerance: Tolerance;
  readonly passed: boolean;
}

/** Token ids or text that have to be the same. */
export interface EqualCheck {
  readonly kind: "equal";
  readonly name: string;
  readonly expected: string;
  readonly found: string;
  readonly passed: boolean;
}

export type Check = TensorCheck | EqualCheck;

/**
 * Compares numbers, in double precision. NaN agrees with nothing, and nothing at all is no agreement either; what a
 * thinned golden leaves out is passed over.
 */
export function checkTensor(
  name: string,
  found: readonly ArrayLike<number>[],
  expected: readonly ArrayLike<number>[],
  tolerance: Tolerance,
): Check {
  const lengths = (parts: readonly ArrayLike<number>[]) => parts.map((part) => part.length);
  const elements = expected.reduce((sum, part) => sum + countKept(part), 0);
  if (elements === 0 || lengths(found).join() !== lengths(expected).join()) {
    return checkEqual(`${name}, number of elements`, lengths(found), lengths(expected), elements > 0);
  }
  let passed = true;
  let maxAbs = 0;
  let [difference, norm, foundNorm, product] = [0, 0, 0, 0];
  expected.forEach((part, p) => {
    for (let i = 0; i < part.length; i++) {
      const a = found[p]![i]!;
      const b = part[i]!;
      if (b === OMITTED) continue;
      const distance = Math.abs(a - b);
      if (!(distance <= tolerance.atol + tolerance.rtol * Math.abs(b))) passed = false;
      maxAbs = Math.max(maxAbs, distance); // NaN stays
      difference += distance ** 2;
      norm += b ** 2;
      foundNorm += a ** 2;
      product += a * b;
    }
  });
  const relativeNorm = difference === 0 ? 0 : Math.sqrt(difference / norm);
  const cosine = difference === 0 ? 1 : product / Math.sqrt(norm * foundNorm);
  return { kind: "tensor", name, elements, maxAbs, relativeNorm, cosine, tolerance, passed };
}

function countKept(values: ArrayLike<number>): number {
  let kept = 0;
  for (let i = 0; i < values.length; i++) if (values[i] !== OMITTED) kept++;
  return kept;
}

/** Compares ids, numbers or a text, as they are. `allowed` is false where even agreement means nothing. */
export function checkEqual(
  name: string,
  found: string | readonly (number | readonly number[])[],
  expected: string | readonly (number | readonly number[])[],
  allowed = true,
): EqualCheck {
  const [a, b] = [JSON.stringify(found), JSON.stringify(expected)];
  return { kind: "equal", name, expected: b, found: a, passed: allowed && a === b };
}
