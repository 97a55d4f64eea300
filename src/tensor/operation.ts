import { LifetimeError } from "../errors.ts";
import type { Device } from "./device.ts";
import type { Tensor } from "./tensor.ts";

/**
 * An operation: checks its inputs, makes its outputs and launches the kernels that fill them. Everything it does
 * follows from `inputs` and `attributes`, so that an applied operation is fully described by a small record.
 */
export interface Operation<A> {
  readonly name: string;
  /** Temporaries may be left undisposed; they go when the operation ends. */
  run(inputs: readonly Tensor[], attributes: A, device: Device): Tensor;
}

/** What happened: enough to count, to profile, or to differentiate it. */
export interface OperationRecord<A = unknown> {
  readonly operation: Operation<A>;
  readonly inputs: readonly Tensor[];
  readonly attributes: A;
  readonly output: Tensor;
}

let depth = 0;

/**
 * Applies an operation. Inputs may be undefined where the operation allows it (an absent bias); they are left out of
 * the record. Throws LifetimeError when inputs live on different devices or were disposed of.
 */
export function apply<A>(operation: Operation<A>, inputs: readonly Tensor[], attributes: A): Tensor {
  const device = inputs[0]!.device;
  device.assertUsable();
  for (const input of inputs) {
    void input.storage; // throws when disposed of
    if (input.device !== device) {
      throw new LifetimeError(`${operation.name}: the inputs live on different devices`);
    }
  }
  depth++;
  try {
    const output = device.scope(() => operation.run(inputs, attributes, device));
    if (depth === 1) device.onOperation?.({ operation, inputs, attributes, output } as OperationRecord);
    return output;
  } finally {
    depth--;
  }
}
