import { equal, select } from "../../kernels/elementwise/compare.ts";
import { abs, div, maximum, mul } from "../../kernels/elementwise/elementwise.ts";
import { max, norm, sum } from "../../kernels/reduction/reduce.ts";
import type { Tensor } from "../../tensor/tensor.ts";

/**
 * Cosine of the angle between vectors along the last axis, with broadcasting: [..., n] and [..., n] → [...]. The zero
 * vector has similarity 0 with everything.
 */
export function cosineSimilarity(a: Tensor, b: Tensor): Tensor {
  return a.device.scope(() => {
    const [u, v] = [scaled(a), scaled(b)];
    // Of what is not zero the norms are 1 or more.
    const norms = maximum(mul(norm(u, -1), norm(v, -1)), 1);
    return div(sum(mul(u, v), -1), norms);
  });
}

/** The vectors divided by their largest magnitude, so that products of their elements stay in range. */
function scaled(x: Tensor): Tensor {
  const size = max(abs(x), -1, { keepDims: true });
  return div(x, select(equal(size, 0), 1, size));
}
