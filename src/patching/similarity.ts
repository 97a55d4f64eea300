import { div, maximum, mul, sqrt } from "../kernels/elementwise.ts";
import { sum } from "../kernels/reduce.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** Norms below this count as this, so that the zero vector has similarity 0 with everything. */
const TINY = 1e-12;

/** Cosine of the angle between vectors along the last axis, with broadcasting: [..., n] and [..., n] → [...]. */
export function cosineSimilarity(a: Tensor, b: Tensor): Tensor {
  return a.device.scope(() => {
    const norms = maximum(mul(norm(a), norm(b)), TINY);
    return div(sum(mul(a, b), -1), norms);
  });
}

function norm(x: Tensor): Tensor {
  return sqrt(sum(mul(x, x), -1));
}
