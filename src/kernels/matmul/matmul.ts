import { ShapeError } from "../../errors.ts";
import type { Device } from "../../tensor/device.ts";
import { assertFloats } from "../../tensor/dtype.ts";
import { apply, type Operation } from "../../tensor/operation.ts";
import { broadcastShapes, showShape } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { Product } from "./matmul-product.ts";
import { launchRegister } from "./matmul-register.ts";
import { launchWorkgroup } from "./matmul-workgroup.ts";
import { launchMatvec } from "./matvec.ts";

/**
 * Matrix product over the last two dimensions: a [..., M, K] @ b [..., K, N] -> f32 [..., M, N]. Leading dimensions
 * broadcast. Both operands may be f32, f16 or bf16 and views of any strides (transposed ones are read in place); sums
 * are in f32. With K = 0 the result is zero. NaN and infinity follow IEEE arithmetic.
 *
 * @throws ShapeError when an operand has fewer than two dimensions or the shapes do not fit.
 * @throws DTypeError for integer operands.
 */
export function matmul(a: Tensor, b: Tensor): Tensor {
  return apply(matmulOperation, [a, b], {});
}

export const matmulOperation: Operation<Record<never, never>> = {
  name: "matmul",
  arithmetic: ([a], _, output) => 2 * a!.dim(-1) * output.size,
  run([a, b], _attributes, device) {
    assertFloats("matmul", [a!, b!]);
    if (a!.rank < 2 || b!.rank < 2 || a!.dim(-1) !== b!.dim(-2)) {
      throw new ShapeError(
        `matmul: expected [..., M, K] and [..., K, N], found ${showShape(a!.shape)} and ${showShape(b!.shape)}`,
      );
    }
    const batch = broadcastShapes("matmul", a!.shape.slice(0, -2), b!.shape.slice(0, -2));
    const [rows, depth, columns] = [a!.dim(-2), a!.dim(-1), b!.dim(-1)];
    const out = device.empty([...batch, rows, columns], "f32", "matmul");
    launchProduct({
      a: a!.broadcastTo([...batch, rows, depth]),
      b: b!.broadcastTo([...batch, depth, columns]),
      bias: undefined,
      residual: undefined,
      out,
    });
    return out;
  },
};

/** Computes a product with the variant that suits the device and the shapes. */
export function launchProduct(product: Product): void {
  if (product.out.device.info.kernels === "register") launchRegister(product);
  else if (!launchMatvec(product)) launchWorkgroup(product);
}

/**
 * Whether a row of a product has the same bits whatever the number of rows computed with it: register kernels add up in
 * the order of the depth, all of them; those for GPUs share out a single row in another way than many.
 */
export function rowsAreIndependent(device: Device): boolean {
  return device.info.kernels === "register";
}
