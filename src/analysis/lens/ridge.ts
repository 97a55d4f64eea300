import { CholeskyDecomposition, Matrix } from "ml-matrix";

/**
 * Sums over points (x, y), from which an affine map y ≈ A x + b is found by ridge regression: what normal equations need, in f64,
 * whatever the number of points.
 */
export class Moments {
  readonly width: number;
  count = 0;
  /** Σ xᵢ xⱼ for j ≤ i, and Σ yᵢ xⱼ, both [width, width] less the first point's values: large means would cost digits. */
  readonly #squares: Float64Array;
  readonly #products: Float64Array;
  readonly #sums: { readonly x: Float64Array; readonly y: Float64Array };
  #first: { readonly x: Float64Array; readonly y: Float64Array } | undefined;

  constructor(width: number) {
    this.width = width;
    this.#squares = new Float64Array(width * width);
    this.#products = new Float64Array(width * width);
    this.#sums = { x: new Float64Array(width), y: new Float64Array(width) };
  }

  /** Points as rows: x and y [points, width]. */
  add(x: Float32Array, y: Float32Array): void {
    const { width } = this;
    const points = x.length / width;
    if (points === 0) return;
    this.#first ??= {
      x: Float64Array.from(x.subarray(0, width)),
      y: Float64Array.from(y.subarray(0, width)),
    };
    const columns = columnsOf(x, this.#first.x);
    const targets = columnsOf(y, this.#first.y);
    for (let i = 0; i < width; i++) {
      const [xi, yi] = [columns[i]!, targets[i]!];
      for (let j = 0; j < width; j++) {
        if (j <= i) this.#squares[i * width + j]! += dot(xi, columns[j]!);
        this.#products[i * width + j]! += dot(yi, columns[j]!);
      }
      for (let p = 0; p < points; p++) {
        this.#sums.x[i]! += xi[p]!;
        this.#sums.y[i]! += yi[p]!;
      }
    }
    this.count += points;
  }

  /**
   * A [width, width] and b [width] with the least Σ |A x + b − y|² + ridge · Σ n var(xⱼ) Aᵢⱼ²: features as if they were
   * standardised, b free. Undefined where the points do not determine A, or are not finite.
   */
  fit(ridge: number): { map: Float32Array; bias: Float32Array } | undefined {
    const { width, count } = this;
    const first = this.#first!;
    const mean = { x: this.#sums.x.map((s) => s / count), y: this.#sums.y.map((s) => s / count) };
    const squares = new Matrix(width, width);
    const products = new Matrix(width, width); // [x, y]
    for (let i = 0; i < width; i++) {
      for (let j = 0; j < width; j++) {
        const square =
          this.#squares[Math.max(i, j) * width + Math.min(i, j)]! - count * (mean.x[i]! * mean.x[j]!);
        squares.set(i, j, square);
        products.set(j, i, this.#products[i * width + j]! - count * mean.y[i]! * mean.x[j]!);
      }
    }
    // In units of each feature's deviation, so that pivots can be told from rounding.
    const scales = squares.diagonal().map((square) => (square > 0 ? 1 / Math.sqrt(square) : 0));
    for (let i = 0; i < width; i++) {
      for (let j = 0; j < width; j++) {
        squares.set(i, j, squares.get(i, j) * (scales[i]! * scales[j]!));
        products.set(i, j, products.get(i, j) * scales[i]!);
      }
      squares.set(i, i, (scales[i] === 0 ? 0 : 1) + ridge);
    }
    if (!squares.to1DArray().every(Number.isFinite)) return undefined;
    const factored = new CholeskyDecomposition(squares);
    const triangle = factored.lowerTriangularMatrix;
    if (!(Math.min(...triangle.diagonal()) > SMALLEST_PIVOT)) return undefined;
    const solved = factored.solve(products); // [x, y]
    const map = new Float32Array(width * width);
    const bias = new Float32Array(width);
    for (let i = 0; i < width; i++) {
      let shift = mean.y[i]! + first.y[i]!;
      for (let j = 0; j < width; j++) {
        const weight = solved.get(j, i) * scales[j]!;
        map[i * width + j] = weight;
        shift -= weight * (mean.x[j]! + first.x[j]!);
      }
      bias[i] = shift;
    }
    return { map, bias };
  }
}

/** Of correlations; what rounding leaves of none is smaller. */
const SMALLEST_PIVOT = 1e-6;

/** The columns of rows [points, width], less those of `origin`. */
function columnsOf(rows: Float32Array, origin: Float64Array): Float64Array[] {
  const width = origin.length;
  return Array.from(origin, (less, i) =>
    Float64Array.from({ length: rows.length / width }, (_, p) => rows[p * width + i]! - less),
  );
}

/** Four sums at a time, which do not wait for each other. */
function dot(a: Float64Array, b: Float64Array): number {
  let [s0, s1, s2, s3] = [0, 0, 0, 0];
  let i = 0;
  for (; i + 3 < a.length; i += 4) {
    s0 += a[i]! * b[i]!;
    s1 += a[i + 1]! * b[i + 1]!;
    s2 += a[i + 2]! * b[i + 2]!;
    s3 += a[i + 3]! * b[i + 3]!;
  }
  for (; i < a.length; i++) s0 += a[i]! * b[i]!;
  return s0 + s1 + s2 + s3;
}
