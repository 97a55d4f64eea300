import { ShapeError } from "../../errors.ts";
import { assertFloats } from "../../tensor/dtype.ts";
import { defineKernel } from "../../tensor/kernel.ts";
import { apply, type Operation } from "../../tensor/operation.ts";
import { showShape } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { contiguous } from "../movement/copy.ts";
import { rowLoop } from "./row-loop.ts";

/** The constant of {@link layerNorm}. */
export interface LayerNormOptions {
  /** Added to the variance before the root. */
  eps: number;
}

/**
 * Layer norm (Ba et al. 2016, arXiv 1607.06450): (x - mean) / sqrt(variance + eps) * weight + bias over the last
 * dimension, the variance without Bessel's correction. x [..., width], weight [width] and bias [width] (or undefined),
 * each f32, f16 or bf16 -> f32 [..., width]. NaN or infinity in a row makes the whole row NaN.
 *
 * @throws ShapeError when weight or bias is not [width].
 * @throws DTypeError for integers.
 */
export function layerNorm(
  x: Tensor,
  weight: Tensor,
  bias: Tensor | undefined,
  { eps }: LayerNormOptions,
): Tensor {
  const inputs = bias ? [x, weight, bias] : [x, weight];
  assertFloats("layerNorm", inputs);
  if (x.rank === 0 || inputs.slice(1).some((t) => t.rank !== 1 || t.dim(0) !== x.dim(-1))) {
    throw new ShapeError(
      `layerNorm: expected x [..., width], weight and bias [width], found ${inputs.map((t) => showShape(t.shape)).join(", ")}`,
    );
  }
  return apply(layerNormOperation, inputs, { eps });
}

/** Inputs are x, weight and, where there is one, bias. */
export const layerNormOperation: Operation<LayerNormOptions> = {
  name: "layerNorm",
  run(inputs, { eps }, device) {
    const tensors = inputs.map((t) => contiguous(t));
    const [x, weight, bias] = tensors as [Tensor, Tensor, Tensor | undefined];
    const out = device.empty(x.shape, "f32", "layerNorm");
    const width = x.dim(-1);
    const rows = x.shape.slice(0, -1).reduce((product, n) => product * n, 1);
    const byFour = width % 4 === 0 && tensors.every((t) => t.offset % 4 === 0);
    (byFour ? vectorKernel : scalarKernel).launch({
      tensors: { x, weight, bias, out },
      params: { rows, width, eps },
      constants: {},
      workgroups: rowLoop(device).workgroups(rows),
    });
    return out;
  },
};

const scalarKernel = layerNormKernel(1);
const vectorKernel = layerNormKernel(4);

function layerNormKernel(lanes: 1 | 4) {
  const n = lanes === 4 ? "4" : "";
  const sum = (v: string) => (lanes === 4 ? `dot(${v}, vec4f(1.0))` : v);
  const square = (v: string) => (lanes === 4 ? `dot(${v}, ${v})` : `${v} * ${v}`);
  return defineKernel({
    name: `layerNorm by ${lanes}`,
    bindings: {
      x: lanes === 4 ? "read4" : "read",
      weight: lanes === 4 ? "read4" : "read",
      bias: lanes === 4 ? "read4?" : "read?",
      out: lanes === 4 ? "write4" : "write",
    },
    params: { rows: "u32", width: "u32", eps: "f32" },
    code({ device, has }) {
      const loop = rowLoop(device);
      return `
${loop.reduction("row_sum", "a + b")}
${loop.reduction("row_squares", "a + b")}
@compute @workgroup_size(${loop.size})
fn main(${loop.builtins}) {
  ${loop.head}
  let groups_per_row = params.width / ${lanes}u;
  let start = row * groups_per_row;
  var sum = 0.0;
  for (var i = first; i < groups_per_row; i += step) {
    let v = x_at${n}(start + i);
    sum += ${sum("v")};
  }
  let mean = row_sum(local, sum) / f32(params.width);
  // A second pass: mean(x^2) - mean^2 would cancel where the mean is large.
  var squares = 0.0;
  for (var i = first; i < groups_per_row; i += step) {
    let v = x_at${n}(start + i) - mean;
    squares += ${square("v")};
  }
  let factor = 1.0 / sqrt(row_squares(local, squares) / f32(params.width) + params.eps);
  for (var i = first; i < groups_per_row; i += step) {
    let v = (x_at${n}(start + i) - mean) * factor * weight_at${n}(i);
    out_set${n}(start + i, v${has("bias") ? ` + bias_at${n}(i)` : ""});
  }
}`;
    },
  });
}
