import { defineKernel } from "../../tensor/kernel.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { SharedLoads } from "../matmul/shared-loads.ts";
import { type BackwardSource, count, workgroupLanes } from "./attention-backward-call.ts";
import { sharedWidth } from "./attention-backward-queries.ts";
import { attentionHelpers } from "./attention-call.ts";

const SIZE = 64;

/** Sums of cotangent * output over the dimensions of each head, f32 [rows * heads]; both contiguous from multiples of four on. */
export function outputDots(cotangent: Tensor, output: Tensor, headDim: number): Tensor {
  const heads = output.size / headDim;
  const delta = output.device.empty([heads], "f32", "attention");
  const lanes = headDim % 4 === 0 ? 4 : 1;
  dotKernels[lanes].launch({
    tensors: { cotangent, output, delta },
    params: { heads, head_dim: headDim / lanes },
    constants: {},
    workgroups: Math.ceil(heads / SIZE),
  });
  return delta;
}

const dotKernels = { 1: dotKernel(1), 4: dotKernel(4) };

function dotKernel(lanes: 1 | 4) {
  const read = lanes === 4 ? "read4" : "read";
  const product = lanes === 4 ? "dot(cotangent_at4(i), output_at4(i))" : "cotangent_at(i) * output_at(i)";
  return defineKernel({
    name: `attention_backward_dots by ${lanes}`,
    bindings: { cotangent: read, output: read, delta: "write" },
    params: { heads: "u32", head_dim: "u32" },
    code: () => `
@compute @workgroup_size(${SIZE})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) local: u32) {
  let head = flat_group(group, groups) * ${SIZE}u + local;
  if (head >= params.heads) { return; }
  var sum = 0.0;
  for (var i = head * params.head_dim; i < (head + 1u) * params.head_dim; i++) { sum += ${product}; }
  delta_set(head, sum);
}`,
  });
}

/**
 * What the weights of each head of a row are computed from, f32 [rows * heads, 4]: the maximum score, 1 / the sum of weights
 * relative to it (0 without any), and delta. Where delta is NaN or infinite (so is the cotangent), the second is NaN. stats: [slices, rows * heads, 2].
 */
export function rowStates(stats: Tensor, delta: Tensor): Tensor {
  const [slices, heads] = stats.shape as [number, number];
  const states = stats.device.empty([heads, 4], "f32", "attention");
  stateKernel.launch({
    tensors: { stats, delta, states },
    params: { heads, slices },
    constants: {},
    workgroups: Math.ceil(heads / SIZE),
  });
  return states;
}

const stateKernel = defineKernel({
  name: "attention_backward_states",
  bindings: { stats: "read", delta: "read", states: "write4" },
  params: { heads: "u32", slices: "u32" },
  code: () => `
@compute @workgroup_size(${SIZE})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) local: u32) {
  let head = flat_group(group, groups) * ${SIZE}u + local;
  if (head >= params.heads) { return; }
  var highest = stats_at(2u * head);
  for (var s = 1u; s < params.slices; s++) { highest = max(highest, stats_at(2u * (s * params.heads + head))); }
  var total = 0.0;
  for (var s = 0u; s < params.slices; s++) {
    let at = 2u * (s * params.heads + head);
    let d = stats_at(at) - highest;
    total += select(exp(max(d, -87.0)), 0.0, d < -87.0) * stats_at(at + 1u);
  }
  let delta = delta_at(head);
  var inverse = select(1.0 / total, 0.0, total == 0.0);
  if ((bitcast<u32>(delta) & 0x7f800000u) == 0x7f800000u) {
    var nan = 0x7fc00000u;
    inverse = bitcast<f32>(nan);
  }
  states_set4(head, vec4f(highest, inverse, delta, 0.0));
}`,
});

/**
 * Of each run of as many keys as a workgroup has lanes, the first row that attends to any of them and the row after the last one,
 * u32 [ceil(keys / lanes), 2]; both 0 where none does.
 */
export function rowReach(source: BackwardSource): Tensor {
  const { q, k, segments, column } = source;
  const size = workgroupLanes(q.device);
  const keys = k.dim(0);
  const blocks = Math.ceil(keys / size);
  const reach = q.device.empty([blocks, 2], "u32", "attention");
  reachKernel.launch({
    tensors: { segments, reach },
    params: { rows: q.dim(0), keys, column, blocks },
    constants: { size, width: sharedWidth(source, size) },
    workgroups: Math.ceil(blocks / size),
  });
  return reach;
}

const RUN = 8;

const reachKernel = defineKernel({
  name: "attention_backward_reach",
  bindings: { segments: "read", reach: "write" },
  params: { rows: "u32", keys: "u32", column: "u32", blocks: "u32" },
  code({ constants }) {
    const { size, width } = constants as { size: number; width: number };
    const shared = new SharedLoads(width);
    return `
${shared.enable}
${attentionHelpers(0, false)}
@compute @workgroup_size(${size})
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
  ${shared.parameter}
) {
  let block = flat_group(group, groups) * ${size}u + lane;
  let lowest = block * ${size}u;
  let limit = lowest + ${size}u;
  var first = 0xffffffffu;
  var end = 0u;
  for (var row = 0u; row < params.rows; row += ${RUN}u) {
${shared.perLoad(RUN, (i) => `    let s${i} = segment(min(row + ${shared.index(i)}, params.rows - 1u));`)}
${count(RUN)
  .map(
    (i) => `    {
      let s = ${shared.value("s", i)};
      let attends = s.x < s.y && s.x < limit && s.y > lowest;
      let r = min(row + ${i}u, params.rows - 1u);
      first = select(first, min(first, r), attends);
      end = select(end, r + 1u, attends);
    }`,
  )
  .join("\n")}
  }
  if (block >= params.blocks) { return; }
  reach_set(2u * block, select(0u, first, end > 0u));
  reach_set(2u * block + 1u, end);
}`;
  },
});
