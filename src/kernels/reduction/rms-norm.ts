import { ShapeError } from "../../errors.ts";
import { assertFloats } from "../../tensor/dtype.ts";
import { defineKernel } from "../../tensor/kernel.ts";
import { apply, type Operation } from "../../tensor/operation.ts";
import { showShape } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { contiguous } from "../movement/copy.ts";
import { rowLoop } from "./row-loop.ts";

/** The constants of {@link rmsNorm}. */
export interface RmsNormOptions {
  /** Added to the mean square before the root. */
  eps: number;
  /** Added to the weight; Gemma stores its weights less one. Default 0. */
  offset?: number;
}

/**
 * Root mean square norm (Zhang and Sennrich 2019, arXiv 1910.07467): x / sqrt(mean(x^2) + eps) * (offset + weight) over
 * the last dimension. x [..., width] and weight [width], each f32, f16 or bf16 -> f32 [..., width]. NaN and infinity
 * make their whole row NaN or 0, as IEEE arithmetic has it.
 *
 * @throws ShapeError when weight is not [width].
 * @throws DTypeError for integers.
 */
export function rmsNorm(x: Tensor, weight: Tensor, { eps, offset = 0 }: RmsNormOptions): Tensor {
  assertFloats("rmsNorm", [x, weight]);
  if (x.rank === 0 || weight.rank !== 1 || weight.dim(0) !== x.dim(-1)) {
    throw new ShapeError(
      `rmsNorm: expected x [..., width] and weight [width], found ${showShape(x.shape)} and ${showShape(weight.shape)}`,
    );
  }
  return apply(rmsNormOperation, [x, weight], { eps, offset });
}

export const rmsNormOperation: Operation<Required<RmsNormOptions>> = {
  name: "rmsNorm",
  run(inputs, { eps, offset }, device) {
    const [x, weight] = inputs.map((t) => contiguous(t)) as [Tensor, Tensor];
    const out = device.empty(x.shape, "f32", "rmsNorm");
    const width = x.dim(-1);
    const rows = x.shape.slice(0, -1).reduce((product, n) => product * n, 1);
    const byFour = width % 4 === 0 && x.offset % 4 === 0 && weight.offset % 4 === 0;
    (byFour ? vectorKernel : scalarKernel).launch({
      tensors: { x, weight, out },
      params: { rows, width, eps, offset },
      constants: {},
      workgroups: rowLoop(device).workgroups(rows),
    });
    return out;
  },
};

const scalarKernel = rmsNormKernel(1);
const vectorKernel = rmsNormKernel(4);

function rmsNormKernel(lanes: 1 | 4) {
  const [n, type, square] = lanes === 4 ? ["4", "vec4f", "dot(v, v)"] : ["", "f32", "v * v"];
  return defineKernel({
    name: `rmsNorm by ${lanes}`,
    bindings: {
      x: lanes === 4 ? "read4" : "read",
      weight: lanes === 4 ? "read4" : "read",
      out: lanes === 4 ? "write4" : "write",
    },
    params: { rows: "u32", width: "u32", eps: "f32", offset: "f32" },
    code({ device }) {
      const loop = rowLoop(device);
      return `
${loop.reduction("row_sum", "a + b")}
@compute @workgroup_size(${loop.size})
fn main(${loop.builtins}) {
  ${loop.head}
  let groups_per_row = params.width / ${lanes}u;
  let start = row * groups_per_row;
  var squares = 0.0;
  for (var i = first; i < groups_per_row; i += step) {
    let v = x_at${n}(start + i);
    squares += ${square};
  }
  let factor = 1.0 / sqrt(row_sum(local, squares) / f32(params.width) + params.eps);
  for (var i = first; i < groups_per_row; i += step) {
    out_set${n}(start + i, x_at${n}(start + i) * factor * (${type}(params.offset) + weight_at${n}(i)));
  }
}`;
    },
  });
}
