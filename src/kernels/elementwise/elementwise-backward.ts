import { apply, type Operation } from "../../tensor/operation.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { DECAY } from "./activation.ts";
import { LOGARITHM, POWER, SINE, type UnaryKind } from "./elementwise.ts";
import { IS_NAN, SPECIAL_VALUES } from "./float-bits.ts";
import { defineMap, type Operand } from "./map.ts";

/** Unary operations whose derivative changes with their argument. */
export type CurvedKind = Exclude<UnaryKind, "neg" | "floor" | "ceil" | "round">;

/** WGSL of the derivative times the cotangent `b`; `a` is the argument or the value. */
const DERIVATIVES: Record<CurvedKind, { of: "argument" | "value"; code: string }> = {
  abs: { of: "argument", code: "b * unless_nan(a, sign(a))" },
  square: { of: "argument", code: "2.0 * a * b" },
  exp: { of: "value", code: "a * b" },
  log: { of: "argument", code: "b / a" },
  sqrt: { of: "value", code: "0.5 * b / a" },
  rsqrt: { of: "value", code: "-0.5 * a * (a * (a * b))" },
  // From the argument: 1 - y^2 and 1 - y would have no digits left where y is almost 1.
  tanh: { of: "argument", code: "b * unless_nan(a, 4.0 * bell(2.0 * abs(a)))" },
  sigmoid: { of: "argument", code: "b * unless_nan(a, bell(abs(a)))" },
  sin: { of: "argument", code: "b * sine(a, 1.0)" },
  cos: { of: "argument", code: "-b * sine(a, 0.0)" },
};

const unaryMap = defineMap<CurvedKind>("unaryBackward", {
  expression: (kind) => DERIVATIVES[kind].code,
  helpers: `${IS_NAN}${SPECIAL_VALUES}${DECAY}${SINE}
fn unless_nan(x: F, slope: F) -> F { return select(slope, x, is_nan(x)); }
// e^-x / (1 + e^-x)^2 for x >= 0
fn bell(x: F) -> F {
  let e = decay(-x);
  return e / ((1.0 + e) * (1.0 + e));
}`,
});

const unaryBackwardOperation: Operation<{ kind: CurvedKind }> = {
  name: "unaryBackward",
  run: (inputs, { kind }, device) =>
    unaryMap({ kind, operands: inputs, numbers: "f32", result: "f32", device }),
};

/** What {@link unaryBackward} reads besides the cotangent: the operation's argument or its value. */
export function derivativeOf(kind: CurvedKind): "argument" | "value" {
  return DERIVATIVES[kind].of;
}

/**
 * f'(x) * dy, where `a` is x or f(x) as {@link derivativeOf} says, of dy's shape -> f32. The derivative of abs at 0 is 0.
 */
export function unaryBackward(kind: CurvedKind, a: Tensor, dy: Tensor): Tensor {
  return apply(unaryBackwardOperation, [a, dy], { kind });
}

/** Partial derivatives that are more than a product with the cotangent: of which operation, by which operand. */
export type PartialKind =
  | "div by b"
  | "maximum by a"
  | "maximum by b"
  | "minimum by a"
  | "minimum by b"
  | "pow by a"
  | "pow by b";

/** In `a`, `b` and the cotangent `c`. */
const PARTIALS: Record<PartialKind, string> = {
  "div by b": "-(c / b) * (a / b)",
  "maximum by a": "c * share(b, a)",
  "maximum by b": "c * share(a, b)",
  "minimum by a": "c * share(a, b)",
  "minimum by b": "c * share(b, a)",
  "pow by a": "c * select(b * power(a, b - 1.0), F(0.0), b == F(0.0))",
  "pow by b": "c * exponent_slope(a, b)",
};

const binaryMap = defineMap<PartialKind>("binaryBackward", {
  expression: (kind) => PARTIALS[kind],
  helpers: `${IS_NAN}${SPECIAL_VALUES}${POWER}${LOGARITHM}
// The second's part of what the greater of two gets: half each where they are equal, all where one is NaN.
fn share(first: F, second: F) -> F {
  let part = select(select(F(0.0), F(1.0), second > first), F(0.5), second == first);
  return select(part, F(1.0), is_nan(first) | is_nan(second));
}
fn exponent_slope(a: F, b: F) -> F {
  return keep_nan(a, b, select(power(a, b) * logarithm(a), F(0.0), (a == F(0.0)) & (b >= F(0.0))));
}`,
});

interface PartialAttributes {
  kind: PartialKind;
  a?: number;
  b?: number;
}

const binaryBackwardOperation: Operation<PartialAttributes> = {
  name: "binaryBackward",
  run(inputs, { kind, a, b }, device) {
    const rest = [...inputs];
    const operands = [a ?? rest.shift()!, b ?? rest.shift()!, rest[0]!];
    return binaryMap({ kind, operands, numbers: "f32", result: "f32", device });
  },
};

/**
 * The partial derivative of an operation of a and b, times the cotangent dy, which has the shape that a and b broadcast to
 * -> f32 of that shape.
 *
 * As in PyTorch, equal operands of maximum and minimum get half of the cotangent each, and all of it where one is NaN; the
 * derivative of a^0 is 0, and so is that of 0^b (b >= 0) by b.
 */
export function binaryBackward(kind: PartialKind, a: Operand, b: Operand, dy: Tensor): Tensor {
  const attributes: PartialAttributes = { kind };
  if (typeof a === "number") attributes.a = a;
  if (typeof b === "number") attributes.b = b;
  const inputs = [a, b, dy].filter((x) => typeof x !== "number");
  return apply(binaryBackwardOperation, inputs, attributes);
}
