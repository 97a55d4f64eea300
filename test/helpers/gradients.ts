import { expect } from "vitest";
import { valueAndGradients } from "../../src/gradient/grad.ts";
import { Tape } from "../../src/gradient/tape.ts";
import { mul } from "../../src/kernels/elementwise/elementwise.ts";
import { copy } from "../../src/kernels/movement/copy.ts";
import type { Device } from "../../src/tensor/device.ts";
import type { OperationRecord } from "../../src/tensor/operation.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";

/** The gradients of an operation of vectors for a cotangent (default: 1 everywhere), on the host. */
export async function gradientsOf(
  device: Device,
  run: (...inputs: Tensor[]) => Tensor,
  values: readonly (readonly number[])[],
  cotangent: ArrayLike<number> | number = 1,
): Promise<number[][]> {
  const inputs = values.map((each) => device.tensor(each));
  const dy = typeof cotangent === "number" ? cotangent : device.tensor(cotangent);
  try {
    const { value, gradients } = valueAndGradients(() => mul(run(...inputs), dy), inputs);
    const read = await device.read(gradients);
    for (const each of [value, ...gradients]) each.dispose();
    return read.map((each) => Array.from(each as Float32Array));
  } finally {
    for (const each of inputs) each.dispose();
    if (typeof dy !== "number") dy.dispose();
  }
}

/** Names of the operations that launch kernels while `fn` runs. */
export function operationsOf(device: Device, fn: () => void): string[] {
  const names: string[] = [];
  const stop = device.observe(({ operation }: OperationRecord) => {
    if (!operation.memory) names.push(operation.name);
  });
  try {
    fn();
  } finally {
    stop();
  }
  return names;
}

/**
 * Expects the same gradients whatever is kept of the inputs: tensors from outside (which a tape keeps anyway), intermediate ones
 * (of which it keeps what the rule names), and ones computed anew; for every single input and for all together.
 */
export async function expectEnoughKept(
  device: Device,
  run: (...inputs: Tensor[]) => Tensor,
  inputs: readonly Tensor[],
): Promise<void> {
  const floats = inputs.flatMap((x, i) => (x.dtype === "f32" ? [i] : []));
  for (const wanted of [floats, ...floats.map((i) => [i])]) {
    const gradients = (["outside", "intermediate", "anew"] as const).map((kept) => {
      const tape = new Tape(device, kept === "anew" ? { keepBytes: -1 } : {});
      const made = device.scope(() => {
        const watched = wanted.map((i) => tape.watch(inputs[i]!));
        const inner = (x: Tensor, i: number) => (kept !== "outside" && wanted.includes(i) ? mul(x, 1) : x);
        const out = tape.record(() => device.scope(() => run(...inputs.map(inner))));
        tape.cut();
        tape.backward(out);
        return watched.map((each) => copy(tape.gradient(each)));
      });
      tape.dispose();
      return made;
    });
    const [outside, intermediate, anew] = await Promise.all(gradients.map((each) => device.read(each)));
    for (const each of gradients.flat()) each.dispose();
    expect(intermediate, `inputs ${wanted}, intermediate`).toEqual(outside);
    expect(anew, `inputs ${wanted}, computed anew`).toEqual(outside);
  }
}
