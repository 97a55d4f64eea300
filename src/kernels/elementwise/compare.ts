import { DTypeError } from "../../errors.ts";
import { apply, type Operation } from "../../tensor/operation.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { IS_NAN } from "./float-bits.ts";
import { arithmeticDType, defineMap, type Operand } from "./map.ts";

export type CompareKind = "equal" | "notEqual" | "less" | "lessEqual" | "greater" | "greaterEqual";

/** A number among the operands travels in the attributes; the inputs are the tensors. */
export interface CompareAttributes {
  kind: CompareKind;
  a?: number;
  b?: number;
}

const SYMBOL: Record<CompareKind, string> = {
  equal: "==",
  notEqual: "!=",
  less: "<",
  lessEqual: "<=",
  greater: ">",
  greaterEqual: ">=",
};

const compareMap = defineMap<CompareKind>("compare", {
  expression(kind, dtype) {
    if (dtype !== "f32") return `U(a ${SYMBOL[kind]} b)`;
    if (kind === "notEqual") return "U((a != b) | is_nan(a) | is_nan(b))";
    return `U((a ${SYMBOL[kind]} b) & !is_nan(a) & !is_nan(b))`;
  },
  helpers: IS_NAN,
});

export const compareOperation: Operation<CompareAttributes> = {
  name: "compare",
  run(inputs, { kind, a, b }, device) {
    const dtypes = inputs.map((x) => x.dtype);
    const numbers = arithmeticDType(kind, dtypes);
    const rest = [...inputs];
    const operands = [a ?? rest.shift()!, b ?? rest.shift()!];
    return compareMap({ kind, operands, numbers, result: "u32", device });
  },
};

function compare(kind: CompareKind, a: Operand, b: Operand): Tensor<"u32"> {
  const inputs = [a, b].filter((x) => typeof x !== "number");
  if (inputs.length === 0) throw new DTypeError(`${kind}: expected at least one tensor, found two numbers`);
  const attributes: CompareAttributes = { kind };
  if (typeof a === "number") attributes.a = a;
  if (typeof b === "number") attributes.b = b;
  return apply(compareOperation, inputs, attributes) as Tensor<"u32">;
}

/*
 * Comparisons broadcast as in NumPy and give u32: 1 where true, else 0. Operands are tensors or numbers. Every
 * comparison with NaN is false but for notEqual. All throw ShapeError when shapes do not broadcast and DTypeError when
 * floats and integers are mixed.
 */

/** a == b. */
export function equal(a: Operand, b: Operand): Tensor<"u32"> {
  return compare("equal", a, b);
}

/** a != b. */
export function notEqual(a: Operand, b: Operand): Tensor<"u32"> {
  return compare("notEqual", a, b);
}

/** a < b. */
export function less(a: Operand, b: Operand): Tensor<"u32"> {
  return compare("less", a, b);
}

/** a <= b. */
export function lessEqual(a: Operand, b: Operand): Tensor<"u32"> {
  return compare("lessEqual", a, b);
}

/** a > b. */
export function greater(a: Operand, b: Operand): Tensor<"u32"> {
  return compare("greater", a, b);
}

/** a >= b. */
export function greaterEqual(a: Operand, b: Operand): Tensor<"u32"> {
  return compare("greaterEqual", a, b);
}

export interface SelectAttributes {
  whenTrue?: number;
  whenFalse?: number;
}

const selectMap = defineMap<"select">("select", {
  expression: () => "select(c, b, a != U(0u))",
});

export const selectOperation: Operation<SelectAttributes> = {
  name: "select",
  run(inputs, { whenTrue, whenFalse }, device) {
    const [condition, ...rest] = inputs;
    if (condition!.dtype !== "u32") {
      throw new DTypeError(
        `select: expected a u32 condition, found ${condition!.dtype}; compare with 0 first`,
      );
    }
    const dtypes = rest.map((x) => x.dtype);
    const dtype = rest.length === 0 ? "f32" : arithmeticDType("select", dtypes);
    const operands = [condition!, whenTrue ?? rest.shift()!, whenFalse ?? rest.shift()!];
    return selectMap({ kind: "select", operands, numbers: dtype, result: dtype, device });
  },
};

/**
 * Elements of `whenTrue` where `condition` (u32, as comparisons give) is not 0, elsewhere those of `whenFalse`; all
 * three broadcast. The result is f32 (also for two numbers), or the integers' own dtype.
 *
 * @throws ShapeError, DTypeError
 */
export function select(condition: Tensor, whenTrue: Operand, whenFalse: Operand): Tensor {
  const inputs = [condition, whenTrue, whenFalse].filter((x) => typeof x !== "number");
  const attributes: SelectAttributes = {};
  if (typeof whenTrue === "number") attributes.whenTrue = whenTrue;
  if (typeof whenFalse === "number") attributes.whenFalse = whenFalse;
  return apply(selectOperation, inputs, attributes);
}
