import { GradientError } from "../errors.ts";
import type { Device } from "../tensor/device.ts";
import type { Operation } from "../tensor/operation.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { Node, Place } from "./node.ts";
import type { BackwardCall, Rule } from "./rule.ts";

/** An input of an applied operation. */
export interface Input extends Place {
  /** Undefined for what no watched tensor flows into. */
  readonly node: Node | undefined;
  /** The value, where it comes from outside of the step's segment or the rule reads it. */
  readonly kept: Kept | undefined;
}

/** An applied operation that watched tensors flow through. */
export interface Step {
  readonly operation: Operation<unknown>;
  readonly attributes: unknown;
  /** Undefined for an operation that gradients do not go through: it matters only if one gets there. */
  readonly rule: Rule | undefined;
  readonly inputs: readonly Input[];
  readonly output: Place & { readonly node: Node };
  readonly outputKept: Kept | undefined;
}

/** A value, and how often its buffer had been written then: with another number, it is not what it was. */
export interface Kept {
  readonly value: Tensor;
  readonly writes: number;
}

/** What nodes hold that were computed anew, as one run of elements each, or why that is not known any more. */
export type Computed = ReadonlyMap<Node, Tensor | GradientError>;

export function refusal({ name }: Operation<unknown>): GradientError {
  return new GradientError(`gradients do not go through ${name}, by which the result was computed`);
}

/** Carries the gradient of a step's output to its inputs. */
export function backwardStep(device: Device, step: Step, computed: Computed | undefined): void {
  const { rule, operation, inputs } = step;
  if (!rule) throw refusal(operation);
  const taken = new Set<number>();
  const gradients = device.scope(() => rule.backward(callOf(step, taken, computed)));
  for (const i of taken) inputs[i]!.node!.replace(gradients[i]!);
  for (const [i, gradient] of gradients.entries()) {
    const { node } = inputs[i]!;
    if (gradient && node && !taken.has(i)) node.add(inputs[i]!, gradient);
  }
  for (const gradient of gradients) gradient?.dispose();
}

function callOf(
  { operation, attributes, inputs, output, outputKept }: Step,
  taken: Set<number>,
  computed: Computed | undefined,
): BackwardCall<unknown> {
  const found = (value: Tensor | GradientError | undefined, what: string) => {
    if (value && !(value instanceof GradientError)) return value;
    throw (
      value ??
      new GradientError(`the rule of ${operation.name} reads ${what}, which it does not name as needed`)
    );
  };
  return {
    attributes,
    inputs,
    cotangent: output.node.at(output)!,
    wanted: (i) => inputs[i]?.node !== undefined,
    value: (i) => found(inputValue(operation, inputs[i]!, computed), `input ${i}`),
    output: () =>
      found(placed(computed?.get(output.node), output) ?? keptValue(operation, outputKept), "its output"),
    takeSum(i) {
      const { node } = inputs[i]!;
      const twice = [...taken].some((other) => inputs[other]!.node === node);
      const sum = twice ? undefined : node?.whole(inputs[i]!);
      if (sum) taken.add(i);
      return sum;
    },
  };
}

export function inputValue(
  operation: Operation<unknown>,
  input: Input,
  computed: Computed | undefined,
): Tensor | GradientError | undefined {
  return placed(input.node && computed?.get(input.node), input) ?? keptValue(operation, input.kept);
}

function placed(
  computed: Tensor | GradientError | undefined,
  { shape, strides, offset }: Place,
): Tensor | GradientError | undefined {
  return computed instanceof GradientError ? computed : computed?.view(shape, strides, offset);
}

export function keep(tensor: Tensor): Kept {
  return { value: tensor.alias(), writes: tensor.storage.writes };
}

function keptValue(
  operation: Operation<unknown>,
  kept: Kept | undefined,
): Tensor | GradientError | undefined {
  if (!kept || kept.value.disposed) return undefined;
  if (kept.value.storage.writes !== kept.writes) {
    return new GradientError(
      `the gradient of ${operation.name} needs ${kept.value}, which has been changed in place since`,
    );
  }
  return kept.value;
}
