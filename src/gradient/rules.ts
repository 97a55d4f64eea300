import type { Operation } from "../tensor/operation.ts";
import type { Rule } from "./rule.ts";
import { ATTENTION_RULES } from "./rules/attention.ts";
import { MATRIX_RULES } from "./rules/matrix.ts";

const RULES: ReadonlyMap<Operation<never>, Rule> = new Map(
  [ATTENTION_RULES, MATRIX_RULES].flat().map((rule) => [rule.operation as Operation<never>, rule]),
);

/** The rule of an operation; undefined for one that gradients do not go through. */
export function ruleOf(operation: Operation<never>): Rule | undefined {
  return RULES.get(operation);
}
