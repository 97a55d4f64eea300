import { concat } from "../../../kernels/movement/concat.ts";
import { gatherRows } from "../../../kernels/movement/gather.ts";
import type { Tensor } from "../../../tensor/tensor.ts";
import type { RowPart } from "./row-parts.ts";

/** A tensor of the checkpoint as the model holds it: whole, turned, or in parts. */
export interface Parameter {
  /** What the model computes with; their memory is the model's. */
  readonly tensors: readonly Tensor[];
  /** What the checkpoint's tensor is of some that are like `tensors` (their gradients, say): in its shape. */
  whole(parts: readonly Tensor[]): Tensor;
}

/** NamedParameters by the names of the checkpoint's tensors. */
export type NamedParameters = ReadonlyMap<string, Parameter>;

export function plainParameter(tensor: Tensor): Parameter {
  return { tensors: [tensor], whole: ([whole]) => whole! };
}

/** A matrix that the checkpoint has as [in, out]. */
export function turned({ tensors, whole }: Parameter): Parameter {
  return { tensors, whole: (parts) => whole(parts).transpose() };
}

/** A matrix (or a bias) whose rows belong to several layers. */
export function joinedParameter(tensors: readonly Tensor[], parts: readonly RowPart[]): Parameter {
  const places = parts.flatMap(({ rows }) => rows);
  const order = new Uint32Array(places.length);
  places.forEach((row, i) => {
    order[row] = i;
  });
  return {
    tensors,
    whole(of) {
      const { device, rank } = of[0]!;
      return device.scope(() => {
        const rows = concat(of.map((part) => (rank === 1 ? part.reshape([part.size, 1]) : part)));
        const joined = gatherRows(rows, device.tensor(order, { dtype: "u32" }));
        return rank === 1 ? joined.reshape([order.length]) : joined;
      });
    },
  };
}
