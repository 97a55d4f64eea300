import { assertFloats } from "../../tensor/dtype.ts";
import { defineKernel } from "../../tensor/kernel.ts";
import { apply, type Operation } from "../../tensor/operation.ts";
import { normalizeAxis } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { IS_NAN, SPECIAL_VALUES } from "../elementwise/float-bits.ts";
import { contiguous } from "../movement/copy.ts";
import { rowLoop } from "./row-loop.ts";

/**
 * exp(x - max) / sum(exp(x - max)) along `axis`. x: f32, f16 or bf16 of any shape, or a view -> f32 of that shape.
 *
 * Where all elements are -infinity (nothing to choose from) the result is 0; a NaN or +infinity makes all results
 * along the axis NaN, as in PyTorch. Results below 1e-38 are 0.
 * @throws ShapeError when the axis is out of range.
 * @throws DTypeError for integers.
 */
export function softmax(x: Tensor, axis = -1): Tensor {
  assertFloats("softmax", [x]);
  return apply(softmaxOperation, [x], { axis: normalizeAxis("softmax", axis, x.rank), log: false });
}

/** The logarithm of {@link softmax}, computed without leaving the logarithmic scale; of 0 it is -infinity. */
export function logSoftmax(x: Tensor, axis = -1): Tensor {
  assertFloats("logSoftmax", [x]);
  return apply(softmaxOperation, [x], { axis: normalizeAxis("logSoftmax", axis, x.rank), log: true });
}

export const softmaxOperation: Operation<{ axis: number; log: boolean }> = {
  name: "softmax",
  run(inputs, { axis, log }, device) {
    const x = contiguous(inputs[0]!);
    const out = device.empty(x.shape, "f32", "softmax");
    if (x.size === 0) return out;
    const inner = x.shape.slice(axis + 1).reduce((product, n) => product * n, 1);
    const rows = x.size / x.dim(axis);
    softmaxKernel.launch({
      tensors: { x, out },
      params: { rows, length: x.dim(axis), inner },
      constants: { log },
      workgroups: rowLoop(device).workgroups(rows),
    });
    return out;
  },
};

const softmaxKernel = defineKernel({
  name: "softmax",
  bindings: { x: "read", out: "update" },
  params: { rows: "u32", length: "u32", inner: "u32" },
  code({ constants, device }) {
    const { log } = constants as { log: boolean };
    const loop = rowLoop(device);
    return `
alias F = f32;
alias U = u32;
alias Bool = bool;
${IS_NAN}${SPECIAL_VALUES}
${loop.reduction("row_max", "max(a, b)")}
${loop.reduction("row_sum", "a + b")}
fn fill(start: u32, first: u32, step: u32, value: f32) {
  for (var i = first; i < params.length; i += step) { out_set(start + i * params.inner, value); }
}
@compute @workgroup_size(${loop.size})
fn main(${loop.builtins}) {
  ${loop.head}
  let start = row / params.inner * params.length * params.inner + row % params.inner;
  // NaN counts as infinity here: max() may pass over it, and either spoils the row.
  var highest = -infinity();
  for (var i = first; i < params.length; i += step) {
    let v = x_at(start + i * params.inner);
    highest = max(highest, select(v, infinity(), is_nan(v)));
  }
  let shift = row_max(local, highest);
  if ((bitcast<u32>(shift) & 0x7fffffffu) == 0x7f800000u) {
    fill(start, first, step, select(nan(), ${log ? "shift" : "0.0"}, shift < 0.0));
    return;
  }
  // Summed in short runs, so that long rows do not lose their small terms.
  var sum = 0.0;
  for (var i = first; i < params.length;) {
    var run = 0.0;
    for (let end = i + 256u * step; i < min(end, params.length); i += step) {
      let d = x_at(start + i * params.inner) - shift;
      let e = select(exp(max(d, -87.0)), 0.0, d < -87.0); // drivers differ below the normal range
      ${log ? "" : "out_set(start + i * params.inner, e);"}
      run += e;
    }
    sum += run;
  }
  let total = row_sum(local, sum);
  for (var i = first; i < params.length; i += step) {
    let at = start + i * params.inner;
    ${log ? "out_set(at, x_at(at) - shift - log(total));" : "out_set(at, out_at(at) / total);"}
  }
}`;
  },
});
