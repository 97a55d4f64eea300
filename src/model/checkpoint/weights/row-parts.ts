import { contiguous } from "../../../kernels/movement/copy.ts";
import type { Tensor } from "../../../tensor/tensor.ts";

/** The rows of one layer in a matrix that holds several. */
export interface RowPart {
  /** Numbers of the rows, in the layer's order. */
  readonly rows: readonly number[];
  /** [all, ...] → [own, ...], of a weight or of a bias. */
  take(whole: Tensor): Tensor;
}

/** Layers one after the other, each of so many rows. */
export function consecutive<const Sizes extends readonly number[]>(
  ...sizes: Sizes
): { -readonly [I in keyof Sizes]: RowPart } {
  let end = 0;
  const parts = sizes.map((size): RowPart => {
    const start = end;
    end += size;
    return {
      rows: Array.from({ length: size }, (_, row) => start + row),
      take: (whole) => whole.rows(start, start + size),
    };
  });
  return parts as { -readonly [I in keyof Sizes]: RowPart };
}

/** Three layers of `size` rows each, one after the other. */
export function thirds(size: number): [RowPart, RowPart, RowPart] {
  return consecutive(size, size, size);
}

/** Three layers whose rows take turns, head by head: [heads, 3, headDim]. */
export function thirdsOfHeads(heads: number, headDim: number): [RowPart, RowPart, RowPart] {
  const part = (i: number): RowPart => ({
    rows: Array.from({ length: heads * headDim }, (_, row) => {
      const head = Math.floor(row / headDim);
      return (3 * head + i) * headDim + (row % headDim);
    }),
    take(whole) {
      const rest = whole.shape.slice(1);
      const byHead = whole.reshape([heads, 3, headDim, ...rest]).slice(1, i, i + 1);
      return contiguous(byHead).reshape([heads * headDim, ...rest]);
    },
  });
  return [part(0), part(1), part(2)];
}
