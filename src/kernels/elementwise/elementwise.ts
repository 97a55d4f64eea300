import { DTypeError } from "../../errors.ts";
import { apply, type Operation } from "../../tensor/operation.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { IS_NAN, SPECIAL_VALUES } from "./float-bits.ts";
import { arithmeticDType, defineMap, type Operand, type WideDType } from "./map.ts";

export type BinaryKind = "add" | "sub" | "mul" | "div" | "maximum" | "minimum" | "pow";

/** A number among the operands travels in the attributes; the inputs are the tensors. */
export interface BinaryAttributes {
  kind: BinaryKind;
  a?: number;
  b?: number;
}

/** The functions below are WGSL on {@link IS_NAN} and {@link SPECIAL_VALUES}. */
export const POWER = `
fn keep_nan(a: F, b: F, other: F) -> F { return select(select(other, b, is_nan(b)), a, is_nan(a)); }
fn power(a: F, b: F) -> F {
  let whole = floor(b) == b;
  let odd = whole & (floor(b * 0.5) * 2.0 != b);
  let negative = (bitcast<U>(a) >> U(31u)) == U(1u);
  let base = abs(a);
  let extreme = (base == F(0.0)) | (base == infinity()) | (abs(b) == infinity());
  let limit = select(F(0.0), infinity(), (base > F(1.0)) == (b > F(0.0)));
  let size = select(select(pow(base, b), limit, extreme), F(1.0), base == F(1.0));
  let signed = select(size, -size, negative & odd);
  let real = select(signed, nan(), (a < F(0.0)) & !whole);
  return select(keep_nan(a, b, real), F(1.0), (b == F(0.0)) | (a == F(1.0)));
}`;

export const LOGARITHM = `
fn logarithm(x: F) -> F {
  let finite = select(log(x), -infinity(), x == F(0.0));
  return select(select(finite, nan(), x < F(0.0)), x, is_nan(x));
}`;

export const SINE = `
// sin(x + quarters * pi/2) by reduction to [-pi/4, pi/4]; pi/2 is subtracted in three parts of few digits each.
fn sine(x: F, quarters: f32) -> F {
  let turns = round(x * 0.63661977236);
  let r = ((x - turns * 1.5703125) - turns * 4.837512969970703125e-4) - turns * 7.549789948768648e-8;
  let quadrant = (bitcast<U>(I(turns)) + U(u32(quarters))) & U(3u);
  let s = r * r;
  let sine = r * (1.0 + s * (-1.0 / 6.0 + s * (1.0 / 120.0 + s * (-1.0 / 5040.0 + s / 362880.0))));
  let cosine = 1.0 + s * (-0.5 + s * (1.0 / 24.0 + s * (-1.0 / 720.0 + s / 40320.0)));
  let size = select(sine, cosine, (quadrant & U(1u)) == U(1u));
  let value = select(size, -size, quadrant >= U(2u));
  return select(nan(), value, abs(x) < infinity());
}`;

const binaryMap = defineMap<BinaryKind>("binary", {
  expression(kind, dtype) {
    switch (kind) {
      case "add":
        return "a + b";
      case "sub":
        return "a - b";
      case "mul":
        return "a * b";
      case "div":
        return "a / b";
      case "maximum":
        return dtype === "f32" ? "keep_nan(a, b, max(a, b))" : "max(a, b)";
      case "minimum":
        return dtype === "f32" ? "keep_nan(a, b, min(a, b))" : "min(a, b)";
      case "pow":
        return "power(a, b)";
    }
  },
  helpers: `${IS_NAN}${SPECIAL_VALUES}${POWER}`,
});

export const binaryOperation: Operation<BinaryAttributes> = {
  name: "binary",
  run(inputs, { kind, a, b }, device) {
    const dtype = arithmeticDType(
      kind,
      inputs.map((x) => x.dtype),
    );
    if (kind === "pow" && dtype !== "f32") throw new DTypeError(`pow: expected floats, found ${dtype}`);
    const rest = [...inputs];
    const operands = [a ?? rest.shift()!, b ?? rest.shift()!];
    return binaryMap({ kind, operands, numbers: dtype, result: dtype, device });
  },
};

function binary(kind: BinaryKind, a: Operand, b: Operand): Tensor {
  const inputs = [a, b].filter((x) => typeof x !== "number");
  if (inputs.length === 0) throw new DTypeError(`${kind}: expected at least one tensor, found two numbers`);
  const attributes: BinaryAttributes = { kind };
  if (typeof a === "number") attributes.a = a;
  if (typeof b === "number") attributes.b = b;
  return apply(binaryOperation, inputs, attributes);
}

/*
 * Operands of the binary operations are tensors of any shapes that broadcast as in NumPy, or numbers. f16 and bf16
 * are widened; the result is f32, or the operands' own i32 or u32. Integers wrap on overflow. All throw ShapeError when
 * shapes do not broadcast and DTypeError when floats and integers are mixed.
 */

/** a + b, with broadcasting. */
export function add(a: Operand, b: Operand): Tensor {
  return binary("add", a, b);
}

/** a - b, with broadcasting. */
export function sub(a: Operand, b: Operand): Tensor {
  return binary("sub", a, b);
}

/** a * b, with broadcasting. */
export function mul(a: Operand, b: Operand): Tensor {
  return binary("mul", a, b);
}

/** a / b, with broadcasting. Integers truncate towards zero; dividing an integer by zero leaves it as it is. */
export function div(a: Operand, b: Operand): Tensor {
  return binary("div", a, b);
}

/** The greater of a and b, with broadcasting; NaN if either is. */
export function maximum(a: Operand, b: Operand): Tensor {
  return binary("maximum", a, b);
}

/** The lesser of a and b, with broadcasting; NaN if either is. */
export function minimum(a: Operand, b: Operand): Tensor {
  return binary("minimum", a, b);
}

/**
 * a to the power b, floats only, with broadcasting. Powers of a negative a are real for whole b and NaN otherwise;
 * anything to the power 0 is 1. The relative error grows with |b log a|, to about 1e-5 at the ends of the f32 range.
 */
export function pow(a: Operand, b: Operand): Tensor {
  return binary("pow", a, b);
}

export type UnaryKind =
  | "neg"
  | "abs"
  | "square"
  | "exp"
  | "log"
  | "sqrt"
  | "rsqrt"
  | "tanh"
  | "sigmoid"
  | "sin"
  | "cos"
  | "floor"
  | "ceil"
  | "round";

const INTEGER_KINDS: ReadonlySet<UnaryKind> = new Set(["neg", "abs", "square"]);

const unaryMap = defineMap<UnaryKind>("unary", {
  expression(kind, dtype) {
    switch (kind) {
      case "neg":
        return dtype === "u32" ? "~a + 1u" : "-a";
      case "square":
        return "a * a";
      case "exp":
        return "select(exp(a), a, is_nan(a))";
      case "rsqrt":
        return "inverseSqrt(a)";
      case "log":
        return "logarithm(a)";
      case "tanh":
        return "hyperbolic_tangent(a)";
      case "sigmoid":
        return "logistic(a)";
      case "sin":
        return "sine(a, 0.0)";
      case "cos":
        return "sine(a, 1.0)";
      default:
        return `${kind}(a)`;
    }
  },
  helpers: `${IS_NAN}${SPECIAL_VALUES}${LOGARITHM}
fn logistic(x: F) -> F {
  let e = exp(-abs(x));
  return select(select(e, F(1.0), x >= F(0.0)) / (1.0 + e), x, is_nan(x));
}
// Near zero the quotient would lose its digits, so a Taylor polynomial takes over.
fn hyperbolic_tangent(x: F) -> F {
  let e = exp(-2.0 * abs(x));
  let far = sign(x) * (1.0 - e) / (1.0 + e);
  let s = x * x;
  let near = x * (1.0 + s * (-1.0 / 3.0 + s * (2.0 / 15.0 + s * (-17.0 / 315.0 + s * (62.0 / 2835.0)))));
  return select(select(far, near, abs(x) < F(0.25)), x, is_nan(x));
}${SINE}`,
});

export const unaryOperation: Operation<{ kind: UnaryKind }> = {
  name: "unary",
  run([a], { kind }, device) {
    const dtype = arithmeticDType(kind, [a!.dtype]);
    if (dtype !== "f32" && !INTEGER_KINDS.has(kind)) {
      throw new DTypeError(`${kind}: expected floats, found ${dtype}; cast the tensor first`);
    }
    return unaryMap({ kind, operands: [a!], numbers: dtype, result: dtype as WideDType, device });
  },
};

function unary(kind: UnaryKind, x: Tensor): Tensor {
  return apply(unaryOperation, [x], { kind });
}

/*
 * Unary operations keep the shape and give f32 (f16 and bf16 are widened). neg, abs and square also take integers and
 * keep their dtype; the others throw DTypeError for them. NaN gives NaN.
 */

/** -x. Unsigned integers wrap. */
export function neg(x: Tensor): Tensor {
  return unary("neg", x);
}

/** |x|. */
export function abs(x: Tensor): Tensor {
  return unary("abs", x);
}

/** x * x. */
export function square(x: Tensor): Tensor {
  return unary("square", x);
}

/** e to the power x. */
export function exp(x: Tensor): Tensor {
  return unary("exp", x);
}

/** Natural logarithm: -infinity at zero, NaN below. */
export function log(x: Tensor): Tensor {
  return unary("log", x);
}

/** Square root. */
export function sqrt(x: Tensor): Tensor {
  return unary("sqrt", x);
}

/** 1 / sqrt(x). */
export function rsqrt(x: Tensor): Tensor {
  return unary("rsqrt", x);
}

/** Hyperbolic tangent. */
export function tanh(x: Tensor): Tensor {
  return unary("tanh", x);
}

/** 1 / (1 + exp(-x)). */
export function sigmoid(x: Tensor): Tensor {
  return unary("sigmoid", x);
}

/** Sine of x in radians; absolute error below 1e-6 for |x| up to 1e4, growing in proportion beyond. */
export function sin(x: Tensor): Tensor {
  return unary("sin", x);
}

/** Cosine of x in radians; as accurate as {@link sin}. */
export function cos(x: Tensor): Tensor {
  return unary("cos", x);
}

/** Greatest whole number not above x. */
export function floor(x: Tensor): Tensor {
  return unary("floor", x);
}

/** Least whole number not below x. */
export function ceil(x: Tensor): Tensor {
  return unary("ceil", x);
}

/** Nearest whole number, halves to even. */
export function round(x: Tensor): Tensor {
  return unary("round", x);
}
