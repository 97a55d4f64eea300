import type { ActivationKind } from "../../../kernels/elementwise/activation.ts";
import { joinWeights } from "../../../kernels/matmul/join-weights.ts";
import { gatedLinear, linearParts } from "../../../kernels/matmul/linear-parts.ts";
import { concat } from "../../../kernels/movement/concat.ts";
import { copy } from "../../../kernels/movement/copy.ts";
import { type Operand, Packed } from "../../../tensor/packed/packed.ts";
import { Tensor } from "../../../tensor/tensor.ts";
import type { Linear } from "./linear-layer.ts";

/** Weights one under the other, [sum of the layers' out, in], and biases. */
interface Joint {
  readonly weight: Operand;
  readonly bias: Tensor | undefined;
}

/**
 * Linear layers that read the same rows: queries, keys and values, or gate and up. Where they are stored alike, their
 * weights are moved into one matrix, of which each layer has a view, and multiplied at once.
 */
export class LinearGroup {
  readonly layers: readonly Linear[];
  readonly #sizes: readonly number[];
  #joint: Joint | undefined;

  constructor(layers: readonly Linear[]) {
    this.layers = layers;
    this.#joint = join(layers);
    this.#sizes = this.#joint ? layers.map(({ weight }) => weight.shape[0]) : [];
    const { weight, bias } = this.#joint ?? {};
    let end = 0;
    for (const [i, size] of this.#sizes.entries()) {
      const start = end;
      end += size;
      const own = memoryOf(weight!)(() => ({
        weight: weight!.rows(start, end),
        bias: bias?.rows(start, end),
      }));
      layers[i]!.moveTo(own.weight, own.bias, () => this.#separate());
    }
  }

  /** x [rows, in] → [rows, out] of each layer, with the numbers that it gives by itself. */
  apply(x: Tensor): Tensor[] {
    if (!this.#joint) return this.layers.map((layer) => layer.apply(x));
    const { weight, bias } = this.#joint;
    const parts = linearParts(x, weight, this.#sizes, { bias });
    return this.layers.map((layer, i) => layer.updated(parts[i]!, x));
  }

  /** act(gate(x)) * up(x) of two layers, gate and up, in one product; undefined where that takes several. */
  gated(x: Tensor, kind: ActivationKind): Tensor | undefined {
    if (!this.#joint || this.layers.some(({ isAdapted }) => isAdapted)) return undefined;
    return gatedLinear(x, this.#joint.weight, kind, { bias: this.#joint.bias });
  }

  /** Gives each layer memory of its own again. */
  #separate(): void {
    const { weight, bias } = this.#joint!;
    this.#joint = undefined;
    for (const layer of this.layers) {
      const own = memoryOf(weight)(() => ({
        weight: ownCopy(layer.weight.operand),
        bias: layer.bias && copy(layer.bias),
      }));
      layer.moveTo(own.weight, own.bias);
    }
    weight.dispose();
    bias?.dispose();
  }
}

function join(layers: readonly Linear[]): Joint | undefined {
  const operands = layers.map(({ weight }) => weight.operand);
  // While a model's tensors are only looked up, there are none.
  if (!operands.every((operand) => operand instanceof Tensor || operand instanceof Packed)) return undefined;
  const biases = layers.flatMap(({ bias }) => (bias ? [bias] : []));
  const [dtype] = biases.map((bias) => bias.dtype);
  const allOrNone = biases.length === 0 || biases.length === layers.length;
  if (!allOrNone || biases.some((bias) => bias.dtype !== dtype)) return undefined;
  return memoryOf(operands[0]!)(() => {
    const weight = joinWeights(operands);
    return weight && { weight, bias: biases.length > 0 ? concat(biases) : undefined };
  });
}

/** Runs a function whose tensors live as long as the operand's. */
function memoryOf(operand: Operand): <T>(fn: () => T) => T {
  const [tensor] = operand instanceof Packed ? [...operand.parts.values()] : [operand];
  return (fn) => tensor!.scope?.enter(fn) ?? fn();
}

/** A copy in the same layout. */
function ownCopy(weight: Operand): Operand {
  if (weight instanceof Packed) return weight.alias();
  if (weight.strides[1] === 1) return copy(weight);
  return weight.device.scope(() => copy(weight.transpose()).transpose());
}
