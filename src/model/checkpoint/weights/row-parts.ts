import { contiguous } from "../../../kernels/movement/copy.ts";
import type { Tensor } from "../../../tensor/tensor.ts";

/** Takes the rows of one layer out of a matrix that holds several: [all, ...] → [own, ...], of a weight or of a bias. */
export type RowPart = (whole: Tensor) => Tensor;

/** Three layers of `size` rows each, one after the other. */
export function thirds(size: number): [RowPart, RowPart, RowPart] {
  const part =
    (i: number): RowPart =>
    (whole) =>
      whole.rows(i * size, (i + 1) * size);
  return [part(0), part(1), part(2)];
}

/** Three layers whose rows take turns, head by head: [heads, 3, headDim]. */
export function thirdsOfHeads(heads: number, headDim: number): [RowPart, RowPart, RowPart] {
  const part =
    (i: number): RowPart =>
    (whole) => {
      const rest = whole.shape.slice(1);
      const byHead = whole.reshape([heads, 3, headDim, ...rest]).slice(1, i, i + 1);
      return contiguous(byHead).reshape([heads * headDim, ...rest]);
    };
  return [part(0), part(1), part(2)];
}
