import type { Device } from "../../src/tensor/device.ts";
import type { DType } from "../../src/tensor/dtype.ts";
import { type Shape, sizeOf } from "../../src/tensor/shape.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { randomArray } from "./compare.ts";

/**
 * A tensor of the given shape with random contents and, depending on the seed, an inconvenient layout: a permuted
 * view, or a slice of something larger that starts at any offset.
 */
export function viewOf(device: Device, shape: Shape, dtype: DType, seed: number, scale = 4): Tensor {
  const order = shape.map((_, i) => i);
  if (seed % 2) order.reverse();
  const slack = seed % 3;
  const padded = order.map((axis) => shape[axis]! + slack);
  let view: Tensor = device.tensor(randomArray(sizeOf(padded), seed, scale), { shape: padded, dtype });
  order.forEach((axis, i) => {
    const start = (seed >> i) % (slack + 1);
    view = view.slice(i, start, start + shape[axis]!);
  });
  return view.permute(order.map((_, axis) => order.indexOf(axis)));
}
