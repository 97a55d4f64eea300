import { defineKernel } from "../../tensor/kernel.ts";
import type { Tensor } from "../../tensor/tensor.ts";

const SIZE = 64;

/**
 * Puts together what attention over several slices of the keys gave. partial: [slices, rows, heads * headDim], weighted
 * values, not divided by the sum of weights. stats: [slices, rows * heads, 2], the maximum score that weights are
 * relative to, and their sum. out: [rows, heads * headDim].
 */
export function combineSlices(partial: Tensor, stats: Tensor, out: Tensor, headDim: number): void {
  const lanes = headDim % 4 === 0 ? 4 : 1;
  const count = out.size / lanes;
  kernels[lanes].launch({
    tensors: { partial, stats, out },
    params: { count, heads: out.size / headDim, head_dim: headDim / lanes, slices: partial.dim(0) },
    constants: {},
    workgroups: Math.ceil(count / SIZE),
  });
}

const kernels = { 1: combineKernel(1), 4: combineKernel(4) };

function combineKernel(lanes: 1 | 4) {
  const [n, type] = lanes === 4 ? ["4", "vec4f"] : ["", "f32"];
  return defineKernel({
    name: `attention_combine by ${lanes}`,
    bindings: {
      partial: lanes === 4 ? "read4" : "read",
      stats: "read",
      out: lanes === 4 ? "write4" : "write",
    },
    params: { count: "u32", heads: "u32", head_dim: "u32", slices: "u32" },
    code: () => `
@compute @workgroup_size(${SIZE})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) local: u32) {
  let i = flat_group(group, groups) * ${SIZE}u + local;
  if (i >= params.count) { return; }
  let head = i / params.head_dim; // of all rows
  var highest = stats_at(2u * head);
  for (var s = 1u; s < params.slices; s++) { highest = max(highest, stats_at(2u * (s * params.heads + head))); }
  var values = ${type}();
  var total = 0.0;
  for (var s = 0u; s < params.slices; s++) {
    let at = 2u * (s * params.heads + head);
    let d = stats_at(at) - highest;
    let weight = select(exp(max(d, -87.0)), 0.0, d < -87.0);
    values += weight * partial_at${n}(s * params.count + i);
    total += weight * stats_at(at + 1u);
  }
  out_set${n}(i, values * select(1.0 / total, 0.0, total == 0.0));
}`,
  });
}
