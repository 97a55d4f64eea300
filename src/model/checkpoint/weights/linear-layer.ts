import { Matrix } from "../../../kernels/matmul/matrix.ts";
import type { Operand } from "../../../tensor/packed/packed.ts";
import type { Tensor } from "../../../tensor/tensor.ts";
import { addLowRank, type LowRankUpdate, merged } from "./low-rank.ts";

/** A linear layer of a checkpoint: x @ weight^T + bias, plus the low-rank updates of adapters that are not merged. */
export class Linear {
  #weight: Matrix;
  #bias: Tensor | undefined;
  #updates: readonly LowRankUpdate[];
  #separate: (() => void) | undefined;

  constructor(weight: Matrix, bias?: Tensor, updates: readonly LowRankUpdate[] = []) {
    this.#weight = weight;
    this.#bias = bias;
    this.#updates = updates;
  }

  /** [out, in], in the dtype of the file or packed; the memory layout is the one that this device's kernels read fastest. */
  get weight(): Matrix {
    return this.#weight;
  }

  /** [out] */
  get bias(): Tensor | undefined {
    return this.#bias;
  }

  /** Whether it has updates beside its weight. */
  get isAdapted(): boolean {
    return this.#updates.length > 0;
  }

  /** Adds a low-rank update from now on; whoever made it keeps it alive. Returns the function that takes it away again. */
  adapt(update: LowRankUpdate): () => void {
    this.#updates = [...this.#updates, update];
    return () => {
      this.#updates = this.#updates.filter((other) => other !== update);
    };
  }

  /** The same numbers in other memory, in place of the present; `separate` ends that they are shared with other layers. */
  moveTo(weight: Operand, bias: Tensor | undefined, separate?: () => void): void {
    if (weight !== this.#weight.operand) this.#weight.dispose();
    if (bias !== this.#bias) this.#bias?.dispose();
    this.#weight = new Matrix(weight);
    this.#bias = bias;
    this.#separate = separate;
  }

  /** Sees to it that no other layer's numbers lie between its own, so that they can be changed in place. */
  separate(): void {
    this.#separate?.();
  }

  /** What x is multiplied by, [out, in]: the weight, or f32 where it is packed or has updates. The caller disposes of it. */
  dense(): Tensor {
    if (this.#updates.length === 0) return this.weight.dense();
    return this.weight.device.scope(() => merged(this.weight.dense(), this.#updates));
  }

  /** x: [rows, in] → [rows, out]; `add` ([rows, out]) is added to the result in the same kernel. */
  apply(x: Tensor, { add }: { add?: Tensor } = {}): Tensor {
    return this.updated(this.weight.product(x, { bias: this.bias, add }), x);
  }

  /** y [rows, out], the product without updates, with what they make of x [rows, in]. */
  updated(y: Tensor, x: Tensor): Tensor {
    return addLowRank(y, x, this.#updates);
  }
}
