import { linear } from "../../../kernels/matmul/linear.ts";
import type { Tensor } from "../../../tensor/tensor.ts";
import { addLowRank, type LowRankUpdate, merged } from "./low-rank.ts";

/** A linear layer of a checkpoint: x @ weight^T + bias, plus the low-rank updates of adapters that are not merged. */
export class Linear {
  /** [out, in], in the dtype of the file; the memory layout is the one that this device's kernels read fastest. */
  readonly weight: Tensor;
  /** [out] */
  readonly bias: Tensor | undefined;
  #updates: readonly LowRankUpdate[];

  constructor(weight: Tensor, bias?: Tensor, updates: readonly LowRankUpdate[] = []) {
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

  /** What x is multiplied by, [out, in]: the weight, or with updates f32. The caller disposes of it. */
  matrix(): Tensor {
    return this.#updates.length === 0 ? this.weight.alias() : merged(this.weight, this.#updates);
  }

  /** x: [rows, in] → [rows, out]; `add` ([rows, out]) is added to the result in the same kernel. */
  apply(x: Tensor, { add }: { add?: Tensor } = {}): Tensor {
    return addLowRank(linear(x, this.weight, { bias: this.bias, add }), x, this.#updates);
  }
}
