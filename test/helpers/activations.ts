import type { ActivationKind } from "../../src/kernels/elementwise/activation.ts";

/** 1 - erf in f64 for z >= 0: the power series near 0, a continued fraction further out. */
function erfc(z: number): number {
  if (z < 3) {
    let term = z;
    let sum = z;
    for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum); n++) {
      term *= -(z * z) / n;
      sum += term / (2 * n + 1);
    }
    return 1 - (2 / Math.sqrt(Math.PI)) * sum;
  }
  let fraction = 0;
  for (let k = 60; k > 0; k--) fraction = k / 2 / (z + fraction);
  return Math.exp(-z * z) / (z + fraction) / Math.sqrt(Math.PI);
}

/** The normal distribution function in f64. */
function phi(x: number): number {
  const tail = erfc(Math.abs(x) / Math.SQRT2) / 2;
  return x > 0 ? 1 - tail : tail;
}

const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));
const tanhArgument = (x: number) => 2 * Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3);

/** The activation functions in f64. */
export const ACTIVATION_REFERENCE: Record<ActivationKind, (x: number) => number> = {
  silu: (x) => x * sigmoid(x),
  gelu: (x) => x * phi(x),
  gelu_tanh: (x) => x * sigmoid(tanhArgument(x)),
  quick_gelu: (x) => x * sigmoid(1.702 * x),
  relu: (x) => Math.max(x, 0),
  relu2: (x) => Math.max(x, 0) ** 2,
};

/** x * sigmoid(t(x)) by x. */
function gatedSlope(x: number, t: number, dt: number): number {
  const rest = sigmoid(-t);
  return sigmoid(t) * (1 + (rest === 0 ? 0 : x * dt * rest));
}

/** Their derivatives in f64. */
export const ACTIVATION_SLOPE: Record<ActivationKind, (x: number) => number> = {
  silu: (x) => gatedSlope(x, x, 1),
  gelu: (x) => phi(x) + (x * Math.exp((-x * x) / 2)) / Math.sqrt(2 * Math.PI),
  gelu_tanh: (x) => gatedSlope(x, tanhArgument(x), 2 * Math.sqrt(2 / Math.PI) * (1 + 3 * 0.044715 * x * x)),
  quick_gelu: (x) => gatedSlope(x, 1.702 * x, 1.702),
  relu: (x) => (x > 0 ? 1 : 0),
  relu2: (x) => 2 * Math.max(x, 0),
};

export const ACTIVATION_KINDS = Object.keys(ACTIVATION_REFERENCE) as ActivationKind[];
