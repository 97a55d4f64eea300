import type { Matrix } from "../../../kernels/matmul/matrix.ts";
import type { Tensor } from "../../../tensor/tensor.ts";
import { addLowRank, type LowRankUpdate, merged } from "./low-rank.ts";

/** A linear layer of a checkpoint: x @ weight^T + bias, plus the low-rank updates of adapters that are not merged. */
export class Linear {
  /** [out, in], in the dtype of the file or packed; the memory layout is the one that this device's kernels read fastest. */
  readonly weight: Matrix;
  /** [out] */
  readonly bias: Tensor | undefined;
  #updates: readonly LowRankUpdate[];

  constructor(weight: Matrix, bias?: Tensor, updates: readonly LowRankUpdate[] = []) {
    this.weight = weight;
    this.bias = bias;
    this.#updates = updates;
  }

  /** Adds a low-rank update from now on; whoever made it keeps it alive. Returns the function that takes it away again. */
  adapt(update: LowRankUpdate): () => void {
    this.#updates = [...this.#updates, update];
    return () => {
      this.#updates = this.#updates.filter((other) => other !== update);
    };
  }

  /** What x is multiplied by, [out, in]: the weight, or f32 where it is packed or has updates. The caller disposes of it. */
  dense(): Tensor {
    if (this.#updates.length === 0) return this.weight.dense();
    return this.weight.device.scope(() => merged(this.weight.dense(), this.#updates));
  }

  /** x: [rows, in] → [rows, out]; `add` ([rows, out]) is added to the result in the same kernel. */
  apply(x: Tensor, { add }: { add?: Tensor } = {}): Tensor {
    return addLowRank(this.weight.product(x, { bias: this.bias, add }), x, this.#updates);
  }
}
