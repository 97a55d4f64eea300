import { matmul } from "../../../kernels/matmul/matmul.ts";
import { cast } from "../../../kernels/movement/copy.ts";
import type { Tensor } from "../../../tensor/tensor.ts";

/** How much of each entry of an axis a place of another one takes: f32 [to, from], row by row. */
export type AxisWeights = (from: number, to: number) => Float32Array<ArrayBuffer>;

/** Linear between the two nearest, with the ends on the ends (`align_corners`). */
export const betweenEnds: AxisWeights = (from, to) => {
  const weights = new Float32Array(to * from);
  for (let place = 0; place < to; place++) {
    const at = (place * (from - 1)) / Math.max(1, to - 1);
    const below = Math.min(Math.floor(at), from - 1);
    weights[place * from + below]! += 1 - (at - below);
    if (below + 1 < from) weights[place * from + below + 1] = at - below;
  }
  return weights;
};

/** Linear between the two nearest, with half-pixel centres and the ends as they are beyond the last of them. */
export const betweenCentres: AxisWeights = (from, to) => {
  const weights = new Float32Array(to * from);
  for (let place = 0; place < to; place++) {
    const at = Math.max(0, ((place + 0.5) * from) / to - 0.5);
    const below = Math.min(Math.floor(at), from - 1);
    const above = Math.min(below + 1, from - 1);
    weights[place * from + below]! += 1 - (at - below);
    weights[place * from + above]! += at - below;
  }
  return weights;
};

/**
 * Linear with half-pixel centres; where the other axis has fewer places, each takes as many more entries (`antialias`), and at
 * the ends only those that there are.
 */
export const spread: AxisWeights = (from, to) => {
  const weights = new Float32Array(to * from);
  const scale = from / to;
  const support = Math.max(scale, 1);
  for (let place = 0; place < to; place++) {
    const centre = (place + 0.5) * scale - 0.5;
    const own = Array.from({ length: from }, (_, i) => Math.max(0, 1 - Math.abs(i - centre) / support));
    const sum = own.reduce((all, weight) => all + weight, 0);
    weights.set(
      own.map((weight) => weight / sum),
      place * from,
    );
  }
  return weights;
};

interface Grid {
  readonly rows: number;
  readonly columns: number;
}

/**
 * A table of a grid's entries, row by row, resampled to another grid, each axis by itself: [entries, width] → f32 [rows * columns,
 * width].
 *
 * @param from default: a square
 */
export function resampled(table: Tensor, grid: Grid, weights: AxisWeights, from?: Grid): Tensor {
  const { device } = table;
  const [entries, width] = table.shape as [number, number];
  const side = Math.sqrt(entries);
  const own = from ?? { rows: side, columns: side };
  const { rows, columns } = grid;
  const ofRows = device.tensor(weights(own.rows, rows), { shape: [rows, own.rows] });
  const ofColumns = device.tensor(weights(own.columns, columns), { shape: [columns, own.columns] });
  const tall = matmul(ofRows, cast(table, "f32").reshape([own.rows, own.columns * width])); // [rows, columns before * width]
  return matmul(ofColumns, tall.reshape([rows, own.columns, width])).reshape([rows * columns, width]);
}
