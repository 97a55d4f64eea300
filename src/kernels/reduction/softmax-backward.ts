import { defineKernel, type Variant } from "../../tensor/kernel.ts";
import { apply, type Operation } from "../../tensor/operation.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { IS_NAN } from "../elementwise/float-bits.ts";
import { contiguous } from "../movement/copy.ts";
import { rowLoop } from "./row-loop.ts";

/**
 * The gradient of a softmax (or log softmax) along `axis` from its output y and the cotangent dy, both of one shape -> f32 of that
 * shape: y * (dy - sum(dy * y)), or dy - exp(y) * sum(dy) for the logarithm.
 *
 * 0 where all arguments were -infinity, since the output does not change there.
 */
export function softmaxBackward(y: Tensor, dy: Tensor, axis: number, { log }: { log: boolean }): Tensor {
  return apply(softmaxBackwardOperation, [y, dy], { axis, log });
}

const softmaxBackwardOperation: Operation<{ axis: number; log: boolean }> = {
  name: "softmaxBackward",
  run(inputs, { axis, log }, device) {
    const [y, dy] = inputs.map((t) => contiguous(t)) as [Tensor, Tensor];
    const out = device.empty(y.shape, "f32", "softmaxBackward");
    if (y.size === 0) return out;
    const inner = y.shape.slice(axis + 1).reduce((product, n) => product * n, 1);
    const rows = y.size / y.dim(axis);
    softmaxBackwardKernel.launch({
      tensors: { y, dy, out },
      params: { rows, length: y.dim(axis), inner },
      constants: { log },
      workgroups: rowLoop(device).workgroups(rows),
    });
    return out;
  },
};

const softmaxBackwardKernel = defineKernel({
  name: "softmaxBackward",
  bindings: { y: "read", dy: "read", out: "write" },
  params: { rows: "u32", length: "u32", inner: "u32" },
  code({ constants: { log }, device }: Variant<"y" | "dy" | "out", { log: boolean }>) {
    const loop = rowLoop(device);
    return `
alias F = f32;
alias U = u32;
alias Bool = bool;
${IS_NAN}
fn probability(y: f32) -> f32 { return select(select(exp(max(y, -87.0)), 0.0, y < -87.0), y, is_nan(y)); }
${loop.reduction("row_sum", "a + b")}
${log ? loop.reduction("row_possible", "max(a, b)") : ""}
@compute @workgroup_size(${loop.size})
fn main(${loop.builtins}) {
  ${loop.head}
  let start = row / params.inner * params.length * params.inner + row % params.inner;
  // Summed in short runs, so that long rows do not lose their small terms.
  var sum = 0.0;
  ${log ? "var possible = 0.0; // 1 where not all is -infinity" : ""}
  for (var i = first; i < params.length;) {
    var run = 0.0;
    for (let end = i + 256u * step; i < min(end, params.length); i += step) {
      let at = start + i * params.inner;
      ${log ? "if (bitcast<u32>(y_at(at)) != 0xff800000u) { possible = 1.0; }" : ""}
      run += dy_at(at)${log ? "" : " * y_at(at)"};
    }
    sum += run;
  }
  let total = row_sum(local, sum);
  ${log ? "let scale = row_possible(local, possible);" : ""}
  for (var i = first; i < params.length; i += step) {
    let at = start + i * params.inner;
    ${
      log
        ? "out_set(at, select(dy_at(at) - probability(y_at(at)) * total, 0.0, scale == 0.0));"
        : "out_set(at, y_at(at) * (dy_at(at) - total));"
    }
  }
}`;
  },
});
