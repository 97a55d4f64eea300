import {
  activationOperation,
  gatedActivation,
  gatedOperation,
} from "../../kernels/elementwise/activation.ts";
import { activationBackward } from "../../kernels/elementwise/activation-backward.ts";
import { compareOperation, select, selectOperation } from "../../kernels/elementwise/compare.ts";
import {
  type BinaryAttributes,
  type BinaryKind,
  binaryOperation,
  div,
  mul,
  neg,
  type UnaryKind,
  unaryOperation,
} from "../../kernels/elementwise/elementwise.ts";
import {
  binaryBackward,
  type CurvedKind,
  derivativeOf,
  type PartialKind,
  unaryBackward,
} from "../../kernels/elementwise/elementwise-backward.ts";
import type { Operand } from "../../kernels/elementwise/map.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { constantRule, type Rule, rule } from "../rule.ts";
import { sumTo } from "./sum-to.ts";

type Side = "a" | "b";

/** The operands that each partial derivative reads. */
const READS: Record<BinaryKind, Record<Side, readonly Side[]>> = {
  add: { a: [], b: [] },
  sub: { a: [], b: [] },
  mul: { a: ["b"], b: ["a"] },
  div: { a: ["b"], b: ["a", "b"] },
  maximum: { a: ["a", "b"], b: ["a", "b"] },
  minimum: { a: ["a", "b"], b: ["a", "b"] },
  pow: { a: ["a", "b"], b: ["a", "b"] },
};

/** Which operands are tensors, in the order of the inputs. */
function tensorSides(attributes: BinaryAttributes): Side[] {
  return (["a", "b"] as const).filter((side) => attributes[side] === undefined);
}

/** out = a op b, broadcast. */
const binaryRule = rule<BinaryAttributes>({
  operation: binaryOperation,
  needs(attributes, wanted) {
    const sides = tensorSides(attributes);
    const read = sides.flatMap((side, i) => (wanted(i) ? READS[attributes.kind][side] : []));
    return { inputs: sides.flatMap((side, i) => (read.includes(side) ? [i] : [])) };
  },
  backward(call) {
    const { attributes, inputs, cotangent } = call;
    const sides = tensorSides(attributes);
    const operand = (side: Side) => attributes[side] ?? call.value(sides.indexOf(side));
    return sides.map((side, i) =>
      call.wanted(i)
        ? sumTo(partial(attributes.kind, side, operand, cotangent), inputs[i]!.shape)
        : undefined,
    );
  },
});

/** The cotangent times the derivative by one operand, before broadcasting is undone. */
function partial(kind: BinaryKind, by: Side, operand: (side: Side) => Operand, dy: Tensor): Tensor {
  switch (kind) {
    case "add":
      return dy;
    case "sub":
      return by === "a" ? dy : neg(dy);
    case "mul":
      return mul(dy, operand(by === "a" ? "b" : "a"));
    case "div":
      if (by === "a") return div(dy, operand("b"));
  }
  return binaryBackward(`${kind} by ${by}` as PartialKind, operand("a"), operand("b"), dy);
}

const STEPS: ReadonlySet<UnaryKind> = new Set(["floor", "ceil", "round"]);

/** out = f(x). */
const unaryRule = rule<{ kind: UnaryKind }>({
  operation: unaryOperation,
  constant: ({ kind }) => STEPS.has(kind),
  needs({ kind }) {
    if (kind === "neg") return {};
    return derivativeOf(kind as CurvedKind) === "value" ? { output: true } : { inputs: [0] };
  },
  backward(call) {
    const { kind } = call.attributes;
    if (kind === "neg") return [neg(call.cotangent)];
    const curved = kind as CurvedKind;
    const a = derivativeOf(curved) === "value" ? call.output() : call.value(0);
    return [unaryBackward(curved, a, call.cotangent)];
  },
});

/** out = act(x). */
const activationRule = rule({
  operation: activationOperation,
  needs: () => ({ inputs: [0] }),
  backward: (call) => [activationBackward(call.value(0), call.cotangent, call.attributes.kind)],
});

/** out = act(gate) * up. */
const gatedRule = rule({
  operation: gatedOperation,
  needs: (_, wanted) => ({ inputs: wanted(0) ? [0, 1] : [0] }),
  backward(call) {
    const { kind } = call.attributes;
    const gate = call.value(0);
    return [
      call.wanted(0) ? activationBackward(gate, call.cotangent, kind, call.value(1)) : undefined,
      call.wanted(1) ? gatedActivation(gate, call.cotangent, kind) : undefined,
    ];
  },
});

/** out = condition ? whenTrue : whenFalse, broadcast. */
const selectRule = rule({
  operation: selectOperation,
  needs: () => ({ inputs: [0] }),
  backward(call) {
    const { attributes, inputs, cotangent } = call;
    const branches = (["whenTrue", "whenFalse"] as const).filter((b) => attributes[b] === undefined);
    const gradients = branches.map((branch, b) => {
      if (!call.wanted(b + 1)) return undefined;
      const [yes, no] = branch === "whenTrue" ? ([cotangent, 0] as const) : ([0, cotangent] as const);
      return sumTo(select(call.value(0), yes, no), inputs[b + 1]!.shape);
    });
    return [undefined, ...gradients];
  },
});

export const ELEMENTWISE_RULES: readonly Rule[] = [
  binaryRule,
  unaryRule,
  activationRule,
  gatedRule,
  selectRule,
  constantRule(compareOperation),
];
