import { valueAndGradients } from "../../src/gradient/grad.ts";
import { mul } from "../../src/kernels/elementwise/elementwise.ts";
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
