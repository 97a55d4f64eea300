import type { Operation } from "../tensor/operation.ts";
import type { Rule } from "./rule.ts";
import { ATTENTION_RULES } from "./rules/attention.ts";
import { ELEMENTWISE_RULES } from "./rules/elementwise.ts";
import { LINEAR_PARTS_RULES } from "./rules/linear-parts.ts";
import { MATRIX_RULES } from "./rules/matrix.ts";
import { MOVEMENT_RULES } from "./rules/movement.ts";
import { REDUCTION_RULES } from "./rules/reduction.ts";
import { ROPE_RULES } from "./rules/rope.ts";

const RULES: ReadonlyMap<Operation<never>, Rule> = new Map(
  [
    ATTENTION_RULES,
    ELEMENTWISE_RULES,
    LINEAR_PARTS_RULES,
    MATRIX_RULES,
    MOVEMENT_RULES,
    REDUCTION_RULES,
    ROPE_RULES,
  ]
    .flat()
    .map((rule) => [rule.operation as Operation<never>, rule]),
);

/** The rule of an operation; undefined for one that gradients do not go through. */
export function ruleOf(operation: Operation<never>): Rule | undefined {
  return RULES.get(operation);
}
