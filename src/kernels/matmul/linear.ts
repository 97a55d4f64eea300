import { ShapeError } from "../../errors.ts";
import type { Device } from "../../tensor/device.ts";
import { assertFloats } from "../../tensor/dtype.ts";
import { apply, type Operation } from "../../tensor/operation.ts";
import { type Operand, Packed } from "../../tensor/packed/packed.ts";
import { type Flat, flat, packedFrom } from "../../tensor/packed/packed-inputs.ts";
import { showShape } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { launchProduct } from "./product-kernels.ts";

export { preferredWeightLayout, toPreferredLayout, type WeightLayout } from "./matmul-layout.ts";

/** What {@link linear} adds to the product. */
export interface LinearOptions {
  /** [N], any float dtype. */
  bias?: Tensor;
  /** [rows, N], added to the result (a residual stream, say). */
  add?: Tensor;
}

/**
 * A linear layer: x [rows, K] @ weight^T (+ bias) (+ add) -> f32 [rows, N]. The weight is logically [N, K], f32, f16
 * or bf16, either row-major as checkpoints store it or in the layout that loaded models keep theirs in; other strides work,
 * slower. Or it is packed, and unpacked as it is read. Sums are in f32. NaN and infinity follow IEEE arithmetic.
 *
 * @throws ShapeError when shapes do not fit.
 * @throws DTypeError for integer operands.
 */
export function linear(x: Tensor, weight: Operand, { bias, add }: LinearOptions = {}): Tensor {
  const others = [...(bias ? [bias] : []), ...(add ? [add] : [])];
  const attributes = { bias: bias !== undefined, add: add !== undefined };
  if (!(weight instanceof Packed)) return apply(linearOperation, [x, weight, ...others], attributes);
  const { inputs, attributes: packed } = flat(weight);
  return apply(packedLinearOperation, [x, ...inputs, ...others], { ...attributes, packed });
}

/** Inputs: x, the parts of the weight, bias, add. */
export const packedLinearOperation: Operation<{ bias: boolean; add: boolean; packed: Flat }> = {
  name: "linear (packed)",
  arithmetic: ([x], _, output) => 2 * x!.dim(1) * output.size,
  run(inputs, { bias, add, packed }, device) {
    const [x] = inputs as [Tensor];
    const weight = packedFrom(packed, inputs.slice(1));
    return product(device, x, weight, {
      bias: bias ? inputs[1 + packed.parts.length] : undefined,
      add: add ? inputs.at(-1) : undefined,
    });
  },
};

export const linearOperation: Operation<{ bias: boolean; add: boolean }> = {
  name: "linear",
  arithmetic: ([x], _, output) => 2 * x!.dim(1) * output.size,
  run(inputs, attributes, device) {
    const [x, weight] = inputs as [Tensor, Tensor];
    assertFloats("linear", [weight]);
    return product(device, x, weight, {
      bias: attributes.bias ? inputs[2] : undefined,
      add: attributes.add ? inputs.at(-1) : undefined,
    });
  },
};

function product(
  device: Device,
  x: Tensor,
  weight: Operand,
  { bias, add: residual }: { bias: Tensor | undefined; add: Tensor | undefined },
): Tensor {
  assertFloats(
    "linear",
    [x, bias, residual].filter((input) => input !== undefined),
  );
  if (x.rank !== 2 || weight.rank !== 2 || x.dim(1) !== weight.dim(1)) {
    throw new ShapeError(
      `linear: expected x [rows, K] and weight [N, K], found ${showShape(x.shape)} and ${showShape(weight.shape)}`,
    );
  }
  const [rows, columns] = [x.dim(0), weight.dim(0)];
  if (bias) expectShape("bias", bias, [columns]);
  if (residual) expectShape("add", residual, [rows, columns]);
  const out = device.empty([rows, columns], "f32", "linear");
  const b = weight.transpose();
  launchProduct({ a: x, b, bias, residual, out });
  if (b instanceof Packed) b.dispose();
  return out;
}

function expectShape(name: string, tensor: Tensor, shape: readonly number[]): void {
  if (tensor.rank !== shape.length || shape.some((n, i) => tensor.shape[i] !== n)) {
    throw new ShapeError(`linear: expected ${name} ${showShape(shape)}, found ${showShape(tensor.shape)}`);
  }
}
