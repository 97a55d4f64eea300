import { LifetimeError } from "../errors.ts";
import type { Device } from "./device.ts";
import type { Tensor } from "./tensor.ts";

/**
 * An operation: checks its inputs, makes its outputs and launches the kernels that fill them. Everything it does
 * follows from `inputs` and `attributes`, so that an applied operation is fully described by a small record. One that
 * changes a tensor in place has it as its first input, and gives it back.
 */
export interface Operation<A> {
  readonly name: string;
  /** It makes, views or fills memory, without a kernel: `empty`, `view`, `write`, `clear`. */
  readonly memory?: true;
  /** Floating-point operations of it (a multiply-add counts two), where arithmetic may be what bounds it. */
  arithmetic?(inputs: readonly Tensor[], attributes: A, output: Tensor): Arithmetic;
  /** Temporaries may be left undisposed; they go when the operation ends. */
  run(inputs: readonly Tensor[], attributes: A, device: Device): Tensor;
}

/**
 * A number of floating-point operations; or so many for each row of keys that a query attends to, by a table u32 [rows, 4] of
 * start and end in the prefix and among the own keys, of which there are `keys`.
 */
export type Arithmetic =
  | number
  | {
      readonly each: number;
      readonly segments: Tensor;
      readonly keys: readonly [prefix: number, own: number];
    };

/**
 * What happened: enough to count, to profile, to do it again, or to differentiate it. Its tensors live as long as whoever
 * made them says; keep aliases to look at them later.
 */
export interface OperationRecord<A = unknown> {
  readonly operation: Operation<A>;
  readonly inputs: readonly Tensor[];
  readonly attributes: A;
  /** The first input itself where that was changed in place. */
  readonly output: Tensor;
}

let depth = 0;

/**
 * Applies an operation. Absent tensors (a bias) are left out of the inputs, and what says so belongs to the attributes.
 * `device` has to be given where there are no inputs. Throws LifetimeError when inputs live on different devices or were
 * disposed of.
 */
export function apply<A>(
  operation: Operation<A>,
  inputs: readonly Tensor[],
  attributes: A,
  device: Device = inputs[0]!.device,
): Tensor {
  device.assertUsable();
  for (const input of inputs) {
    void input.storage; // throws when disposed of
    if (input.device !== device) {
      throw new LifetimeError(`${operation.name}: the inputs live on different devices`);
    }
  }
  depth++;
  let output: Tensor;
  try {
    output = device.scope(() => operation.run(inputs, attributes, device));
  } finally {
    depth--;
  }
  announce(device, operation, inputs, attributes, output);
  return output;
}

/** Tells those who observe the device; not of what is part of an operation, nor of what they do themselves. */
export function announce<A>(
  device: Device,
  operation: Operation<A>,
  inputs: readonly Tensor[],
  attributes: A,
  output: Tensor,
): void {
  if (depth > 0 || device.observers.size === 0) return;
  depth++;
  try {
    const record = { operation, inputs, attributes, output } as OperationRecord;
    for (const observer of device.observers) observer(record);
  } finally {
    depth--;
  }
}
