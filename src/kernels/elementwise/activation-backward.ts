import { apply, type Operation } from "../../tensor/operation.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { ACTIVATIONS, type ActivationKind } from "./activation.ts";
import { defineMap } from "./map.ts";

/**
 * `slope_<kind>(x)`: the derivative. Each clamps its argument to where it is 0 or the limit to the last bit, so that no
 * product of an infinity and 0 comes up; NaN stays.
 */
const SLOPES = `${ACTIVATIONS}
fn unless_nan(x: F, slope: F) -> F { return select(slope, x, is_nan(x)); }
fn slope_silu(x: F) -> F {
  let c = clamp(x, F(-100.0), F(100.0));
  return unless_nan(x, sigmoid(c) * (F(1.0) + c * sigmoid(-c)));
}
fn slope_gelu(x: F) -> F {
  let c = clamp(x, F(-20.0), F(20.0));
  let tail = half_erfc(abs(c) * F(0.7071067811865476));
  let density = F(0.3989422804014327) * decay(F(-0.5) * c * c);
  return unless_nan(x, fma(c, density, select(tail, F(1.0) - tail, c >= F(0.0))));
}
fn slope_gelu_tanh(x: F) -> F {
  let c = clamp(x, F(-12.0), F(12.0));
  let t = F(1.5957691216057308) * fma(F(0.044715) * c * c, c, c);
  let dt = F(1.5957691216057308) * fma(F(0.134145) * c, c, F(1.0));
  return unless_nan(x, sigmoid(t) * (F(1.0) + c * dt * sigmoid(-t)));
}
fn slope_quick_gelu(x: F) -> F {
  let t = F(1.702) * clamp(x, F(-60.0), F(60.0));
  return unless_nan(x, sigmoid(t) * (F(1.0) + t * sigmoid(-t)));
}
fn slope_relu(x: F) -> F { return unless_nan(x, select(F(0.0), F(1.0), x > F(0.0))); }
fn slope_relu2(x: F) -> F { return F(2.0) * relu(x); }`;

const plainMap = defineMap<ActivationKind>("activationBackward", {
  expression: (kind) => `slope_${kind}(a) * b`,
  helpers: SLOPES,
});

const gatedMap = defineMap<ActivationKind>("activationBackward gated", {
  expression: (kind) => `slope_${kind}(a) * b * c`,
  helpers: SLOPES,
});

/** Inputs are x, the cotangent and, where the activation was multiplied by another tensor, that. */
const backwardOperation: Operation<{ kind: ActivationKind }> = {
  name: "activationBackward",
  run: (inputs, { kind }, device) =>
    (inputs.length === 2 ? plainMap : gatedMap)({
      kind,
      operands: inputs,
      numbers: "f32",
      result: "f32",
      device,
    }),
};

/**
 * act'(x) * dy, or act'(x) * dy * up for the gate of a gated activation. All of one shape and of any float dtype -> f32.
 *
 * The derivative of relu at 0 is 0. That of every kind is NaN for NaN, 0 at -infinity and 1 at +infinity (infinity for relu2).
 */
export function activationBackward(x: Tensor, dy: Tensor, kind: ActivationKind, up?: Tensor): Tensor {
  return apply(backwardOperation, up ? [x, dy, up] : [x, dy], { kind });
}
