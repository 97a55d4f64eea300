import { concat } from "../../../kernels/movement/concat.ts";
import { gatherRows } from "../../../kernels/movement/gather.ts";
import type { Packed } from "../../../tensor/packed/packed.ts";
import type { PackedKind } from "../../../tensor/packed/packed-format.ts";
import type { Tensor } from "../../../tensor/tensor.ts";
import type { Linear } from "./linear-layer.ts";
import type { RowPart } from "./row-parts.ts";

/** A tensor of the checkpoint as the model holds it: whole, turned, or in parts. */
export interface Parameter {
  /** What the model computes with; their memory is the model's. */
  readonly tensors: readonly Tensor[];
  /** How it is packed, in which form it has no tensors of floats and no gradient. */
  readonly packed?: PackedKind;
  /** What the checkpoint's tensor is of some that are like `tensors` (their gradients, say): in its shape. */
  whole(parts: readonly Tensor[]): Tensor;
}

/** A linear layer of the checkpoint: one of the model, or several that its rows are shared out to. */
export interface LinearModule {
  readonly shape: readonly [out: number, width: number];
  readonly layers: readonly { readonly layer: Linear; readonly part?: RowPart }[];
  /** Whether the checkpoint has the weight as [in, out]. */
  readonly transposed?: boolean;
}

/** What a checkpoint's tensors have become. */
export interface LoadedParts {
  readonly parameters: NamedParameters;
  /** By the name of their weight, without `.weight`; one that is the embedding too is called by the output matrix's. */
  readonly linears: ReadonlyMap<string, LinearModule>;
}

/** Parameters by the names of the checkpoint's tensors. */
export type NamedParameters = ReadonlyMap<string, Parameter>;

export function plainParameter(tensor: Tensor): Parameter {
  return { tensors: [tensor], whole: ([whole]) => whole! };
}

/** The weight (or the bias) of one linear layer or several, wherever their numbers are by then; `parts` says which rows are whose. */
export function layerParameter(
  layers: readonly Linear[],
  which: "weight" | "bias",
  parts?: readonly RowPart[],
): Parameter {
  return {
    get tensors() {
      for (const layer of layers) layer.separate(); // they may be changed in place
      return layers.map(({ weight, bias }) => (which === "weight" ? weight.tensor! : bias!));
    },
    whole: parts ? (of) => joined(of, parts) : ([whole]) => whole!,
  };
}

/** A matrix that is kept in few bits. */
export function packedParameter({ format }: Packed): Parameter {
  return { tensors: [], packed: format.kind, whole: ([whole]) => whole! };
}

/** A matrix that the checkpoint has as [in, out]. */
export function turned(parameter: Parameter): Parameter {
  return {
    get tensors() {
      return parameter.tensors;
    },
    ...(parameter.packed && { packed: parameter.packed }),
    whole: (parts) => parameter.whole(parts).transpose(),
  };
}

/** A matrix (or a bias) whose rows belong to several layers, in its own order of rows. */
function joined(of: readonly Tensor[], parts: readonly RowPart[]): Tensor {
  const places = parts.flatMap(({ rows }) => rows);
  const order = new Uint32Array(places.length);
  places.forEach((row, i) => {
    order[row] = i;
  });
  const { device, rank } = of[0]!;
  return device.scope(() => {
    const rows = concat(of.map((part) => (rank === 1 ? part.reshape([part.size, 1]) : part)));
    const whole = gatherRows(rows, device.tensor(order, { dtype: "u32" }));
    return rank === 1 ? whole.reshape([order.length]) : whole;
  });
}
