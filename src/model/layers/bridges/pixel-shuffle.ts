import type { Tensor } from "../../../tensor/tensor.ts";
import { takeRows } from "../../walk/forward.ts";

/**
 * Squares of `factor` by `factor` patches as one row each, the patches row by row beside each other (the inverse of pixel shuffle,
 * Shi et al. 2016, arXiv 1609.05158, by which InternVL and Idefics3 call it): [tiles * side², width] →
 * [tiles * (side / factor)², factor² * width].
 *
 * @param side patches along a side of a tile, a multiple of `factor`
 */
export function pixelShuffle(x: Tensor, side: number, factor: number): Tensor {
  const [rows, width] = x.shape as [number, number];
  const across = side / factor;
  const order: number[] = [];
  for (let square = 0; square < rows / factor ** 2; square++) {
    const tile = Math.floor(square / across ** 2);
    const row = Math.floor((square % across ** 2) / across) * factor;
    const column = (square % across) * factor;
    for (let i = 0; i < factor ** 2; i++) {
      order.push((tile * side + row + Math.floor(i / factor)) * side + column + (i % factor));
    }
  }
  return takeRows(x, order).reshape([rows / factor ** 2, width * factor ** 2]);
}
