import { ShapeError } from "../../errors.ts";
import { assertFloats } from "../../tensor/dtype.ts";
import { apply, type Operation } from "../../tensor/operation.ts";
import { broadcastShapes, showShape } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { launchProduct } from "./product-kernels.ts";

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
