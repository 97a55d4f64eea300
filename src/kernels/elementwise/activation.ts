import { DTypeError, ShapeError } from "../../errors.ts";
import { isFloat } from "../../tensor/dtype.ts";
import { apply, type Operation } from "../../tensor/operation.ts";
import { sameShape, showShape } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { IS_NAN } from "./float-bits.ts";
import { defineMap } from "./map.ts";

/**
 * - `silu`: x * sigmoid(x)
 * - `gelu`: x * Phi(x), with the error function (Hendrycks and Gimpel 2016, arXiv 1606.08415)
 * - `gelu_tanh`: its approximation by tanh(sqrt(2 / pi) * (x + 0.044715 x^3)), from the same paper
 * - `quick_gelu`: x * sigmoid(1.702 x), as in CLIP
 * - `relu`, and `relu2`, its square
 */
export type ActivationKind = "silu" | "gelu" | "gelu_tanh" | "quick_gelu" | "relu" | "relu2";

/** exp of a number <= 0, and 0 where the result would leave the normal range: drivers differ there. */
export const DECAY = `
fn decay(x: F) -> F { return select(exp(max(x, F(-87.0))), F(0.0), x < F(-87.0)); }`;

/** `x` may be NaN anywhere below; the product with it then is. */
export const ACTIVATIONS = `${IS_NAN}${DECAY}
fn sigmoid(x: F) -> F {
  let e = decay(-abs(x));
  return select(e, F(1.0), x >= F(0.0)) / (F(1.0) + e);
}
// Half of erfc(z) for z >= 0 as t exp(-z^2) P(t), t = 1 / (1 + z / 2); P interpolates in Chebyshev nodes.
// Off by 1.2e-7 at most, and by a factor of 1 +- 6e-7 far out, before rounding of exp.
fn half_erfc(z: F) -> F {
  let t = F(1.0) / (F(1.0) + F(0.5) * z);
  var p = F(-0.05235712602734566);
  p = fma(p, t, F(0.25402361154556274));
  p = fma(p, t, F(-0.42926156520843506));
  p = fma(p, t, F(0.21884174644947052));
  p = fma(p, t, F(0.008622662164270878));
  p = fma(p, t, F(0.19038935005664825));
  p = fma(p, t, F(0.24550308287143707));
  p = fma(p, t, F(0.2821437418460846));
  p = fma(p, t, F(0.28209447860717773));
  return F(0.5) * t * decay(-z * z) * p;
}
fn silu(x: F) -> F { return x * sigmoid(x); }
fn gelu(x: F) -> F {
  let tail = half_erfc(min(abs(x), F(20.0)) * F(0.7071067811865476));
  return x * select(tail, F(1.0) - tail, x >= F(0.0));
}
fn gelu_tanh(x: F) -> F {
  let c = clamp(x, F(-12.0), F(12.0)); // beyond, the result is x or 0 to the last bit
  return x * sigmoid(F(1.5957691216057308) * fma(F(0.044715) * c * c, c, c));
}
fn quick_gelu(x: F) -> F { return x * sigmoid(F(1.702) * clamp(x, F(-60.0), F(60.0))); }
fn relu(x: F) -> F { return select(max(x, F(0.0)), x, is_nan(x)); }
fn relu2(x: F) -> F { let r = relu(x); return r * r; }`;

const plainMap = defineMap<ActivationKind>("activation", {
  expression: (kind) => `${kind}(a)`,
  helpers: ACTIVATIONS,
});

const gatedMap = defineMap<ActivationKind>("gatedActivation", {
  expression: (kind) => `${kind}(a) * b`,
  helpers: ACTIVATIONS,
});

export const activationOperation: Operation<{ kind: ActivationKind }> = {
  name: "activation",
  run: ([x], { kind }, device) => plainMap({ kind, operands: [x!], numbers: "f32", result: "f32", device }),
};

export const gatedOperation: Operation<{ kind: ActivationKind }> = {
  name: "gatedActivation",
  run: (inputs, { kind }, device) =>
    gatedMap({ kind, operands: inputs, numbers: "f32", result: "f32", device }),
};

/**
 * The activation function of every element. x: f32, f16 or bf16 of any shape, or a view -> f32.
 *
 * NaN stays NaN and +infinity stays; -infinity gives 0 for the relus and NaN for the others, as in PyTorch.
 * @throws DTypeError for integers.
 */
export function activation(x: Tensor, kind: ActivationKind): Tensor {
  assertFloat("activation", x);
  return apply(activationOperation, [x], { kind });
}

/**
 * act(gate) * up, the product inside a gated MLP (Shazeer 2020, arXiv 2002.05202). Both of one shape, f32, f16 or
 * bf16 -> f32.
 *
 * @throws ShapeError when the shapes differ.
 * @throws DTypeError for integers.
 */
export function gatedActivation(gate: Tensor, up: Tensor, kind: ActivationKind): Tensor {
  if (!sameShape(gate.shape, up.shape)) {
    throw new ShapeError(
      `gatedActivation: expected gate and up of one shape, found ${showShape(gate.shape)} and ${showShape(up.shape)}`,
    );
  }
  assertFloat("gatedActivation", gate);
  assertFloat("gatedActivation", up);
  return apply(gatedOperation, [gate, up], { kind });
}

function assertFloat(operation: string, { dtype }: Tensor): void {
  if (!isFloat(dtype)) throw new DTypeError(`${operation}: expected f32, f16 or bf16, found ${dtype}`);
}
