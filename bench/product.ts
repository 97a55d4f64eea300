/**
 * Two n x n matrices whose product is known, row-major: small whole numbers, and the reflection I - 2/n. Sums of it are
 * exact in f32 for n a power of two, and a chain of products stays in range, for the reflection is its own inverse.
 */
export function operands(n: number): { a: Float32Array<ArrayBuffer>; b: Float32Array<ArrayBuffer> } {
  const a = Float32Array.from({ length: n * n }, (_, i) => ((i * 7) % 13) - 6);
  const b = Float32Array.from({ length: n * n }, (_, i) => (i % (n + 1) === 0 ? 1 : 0) - 2 / n);
  return { a, b };
}

/** Throws when `product` is not a @ b. */
export function checkProduct(product: ArrayLike<number>, n: number): void {
  const { a } = operands(n);
  for (let row = 0; row < n; row++) {
    const values = a.subarray(row * n, (row + 1) * n);
    const shift = (2 / n) * values.reduce((sum, value) => sum + value, 0);
    values.forEach((value, column) => {
      const found = product[row * n + column]!;
      const expected = value - shift;
      if (!(Math.abs(found - expected) < 1e-4)) {
        throw new Error(`row ${row}, column ${column}: found ${found}, expected ${expected}`);
      }
    });
  }
}
