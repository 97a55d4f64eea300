import { linear } from "../kernels/linear.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** A linear layer of a checkpoint: x @ weight^T + bias. */
export class Linear {
  /** [out, in], in the dtype of the file; the memory layout is the one that this device's kernels read fastest. */
  readonly weight: Tensor;
  /** [out] */
  readonly bias: Tensor | undefined;

  constructor(weight: Tensor, bias?: Tensor) {
    this.weight = weight;
    this.bias = bias;
  }

  /** x: [rows, in] → [rows, out]; `add` ([rows, out]) is added to the result in the same kernel. */
  apply(x: Tensor, { add }: { add?: Tensor } = {}): Tensor {
    return linear(x, this.weight, { bias: this.bias, add });
  }
}
