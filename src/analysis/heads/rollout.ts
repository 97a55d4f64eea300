import { ShapeError } from "../../errors.ts";
import { add, mul } from "../../kernels/elementwise/elementwise.ts";
import { matmul } from "../../kernels/matmul/matmul.ts";
import { mean } from "../../kernels/reduction/reduce.ts";
import type { Tensor } from "../../tensor/tensor.ts";

/**
 * Attention rollout (Abnar & Zuidema 2020, arXiv 2005.00928): how much of each position of the input is in `position`
 * after these layers, if attention moved all there is. In each layer half of a row is what its heads attend to on
 * average, and half is the residual stream that passes by: the row itself. It tells about routes, not about use.
 *
 * @param patterns of consecutive layers, the lowest first: each [heads, rows, rows], rows that sum to 1
 * @returns [rows], which sums to 1. Throws ShapeError for patterns of other shapes and positions outside of them.
 */
export function rollout(patterns: readonly Tensor[], position: number): Tensor {
  const first = patterns[0];
  if (!first) throw new ShapeError("rollout: expected the pattern of at least one layer, found none");
  const rows = first.dim(-1);
  for (const { shape } of patterns) {
    if (shape.length !== 3 || shape[1] !== rows || shape[2] !== rows) {
      throw new ShapeError(
        `rollout: expected patterns [heads, ${rows}, ${rows}], found [${shape.join(", ")}]`,
      );
    }
  }
  if (!(Number.isInteger(position) && position >= 0 && position < rows)) {
    throw new ShapeError(`rollout: expected a position from 0 to ${rows - 1}, found ${position}`);
  }
  const { device } = first;
  return device.scope(() => {
    const start = new Float32Array(rows);
    start[position] = 1;
    let mixed: Tensor = device.tensor(start, { shape: [1, rows] });
    for (const pattern of patterns.toReversed()) {
      mixed = mul(add(mixed, matmul(mixed, mean(pattern, 0))), 0.5);
    }
    return mixed.at(0);
  });
}
