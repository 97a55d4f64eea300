import { aCount, aNumber, aString, checkOptions, type Options, oneOf } from "../../arguments.ts";
import type { SpecifySpec } from "../messages/values.ts";

const SPECIFY: Options<SpecifySpec> = {
  kind: oneOf("text", "image", "instruction", "none"),
  count: aCount,
  seed: aNumber,
  template: aString,
};

/** What tells the model the task, of a request. Throws ArgumentError. */
export function readSpecify(given: unknown): SpecifySpec {
  if (given === undefined) return { kind: "none" };
  checkOptions("task", given, SPECIFY, { name: "specify", required: ["kind"] });
  return given as SpecifySpec;
}
