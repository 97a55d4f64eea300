import { ShapeError } from "../../errors.ts";
import { assertFloats } from "../../tensor/dtype.ts";
import { apply, type Operation } from "../../tensor/operation.ts";
import { showShape } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { launchProduct } from "./matmul.ts";

export { preferredWeightLayout, toPreferredLayout, type WeightLayout } from "./matmul-layout.ts";

export interface LinearOptions {
  /** [N], any float dtype. */
  bias?: Tensor;
  /** [rows, N], added to the result (a residual stream, say). */
  add?: Tensor;
}

/**
 * A linear layer: x [rows, K] @ weight^T (+ bias) (+ add) -> f32 [rows, N]. The weight is logically [N, K], f32, f16
 * or bf16, either row-major as checkpoints store it or in the layout of {@link toPreferredLayout}; other strides work,
 * slower. Sums are in f32. NaN and infinity follow IEEE arithmetic.
 *
 * @throws ShapeError when shapes do not fit.
 * @throws DTypeError for integer operands.
 */
export function linear(x: Tensor, weight: Tensor, { bias, add }: LinearOptions = {}): Tensor {
  const inputs = [x, weight, ...(bias ? [bias] : []), ...(add ? [add] : [])];
  return apply(linearOperation, inputs, { bias: bias !== undefined, add: add !== undefined });
}

export const linearOperation: Operation<{ bias: boolean; add: boolean }> = {
  name: "linear",
  arithmetic: ([x], _, output) => 2 * x!.dim(1) * output.size,
  run(inputs, attributes, device) {
    assertFloats("linear", inputs);
    const [x, weight] = inputs as [Tensor, Tensor];
    const bias = attributes.bias ? inputs[2] : undefined;
    const residual = attributes.add ? inputs.at(-1) : undefined;
    if (x.rank !== 2 || weight.rank !== 2 || x.dim(1) !== weight.dim(1)) {
      throw new ShapeError(
        `linear: expected x [rows, K] and weight [N, K], found ${showShape(x.shape)} and ${showShape(weight.shape)}`,
      );
    }
    const [rows, columns] = [x.dim(0), weight.dim(0)];
    if (bias) expectShape("bias", bias, [columns]);
    if (residual) expectShape("add", residual, [rows, columns]);
    const out = device.empty([rows, columns], "f32", "linear");
    launchProduct({ a: x, b: weight.transpose(), bias, residual, out });
    return out;
  },
};

function expectShape(name: string, tensor: Tensor, shape: readonly number[]): void {
  if (tensor.rank !== shape.length || shape.some((n, i) => tensor.shape[i] !== n)) {
    throw new ShapeError(`linear: expected ${name} ${showShape(shape)}, found ${showShape(tensor.shape)}`);
  }
}
