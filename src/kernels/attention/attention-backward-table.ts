import { defineKernel } from "../../tensor/kernel.ts";
import { apply, type Operation } from "../../tensor/operation.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { contiguous } from "../movement/copy.ts";
import { sum } from "../reduction/reduce.ts";
import type { BackwardSource } from "./attention-backward-call.ts";
import {
  ATTENTION_PARAMS,
  attentionHelpers,
  attentionParams,
  headSize,
  lanesOf,
  loadVector,
} from "./attention-call.ts";

/** Rows side by side; GPUs too have enough to do with a workgroup for each head and distance. */
const SIZE = 64;
/** Rows one after the other. */
const ROWS = 16;

/**
 * The gradient of a table of biases, f32 [2 * far + 1, heads]: of each head and distance, the sum of the gradients of all scores
 * at it, which are computed again.
 */
export function tableGradient(sources: readonly BackwardSource[], states: Tensor): Tensor {
  const { q, bias } = sources[0]!;
  const slices = Math.ceil(q.dim(0) / (SIZE * ROWS));
  const out = q.device.empty([sources.length, slices * SIZE, bias!.table.size], "f32", "attention");
  for (const [i, source] of sources.entries()) {
    const { k, v, segments, headDim, softcap, cotangent } = source;
    const lanes = lanesOf(source);
    const { table, shifts } = source.bias!;
    kernels[lanes].launch({
      tensors: {
        q,
        k,
        v,
        segments,
        bias: table,
        shifts,
        cotangent,
        states,
        scores: undefined,
        out: out.at(i),
      },
      params: { ...attentionParams(source, lanes), slices, columns: 0, first: 0 },
      constants: { headDim, softcap },
      workgroups: table.size * slices,
    });
  }
  return sum(out, [0, 1]).reshape(bias!.table.shape);
}

interface ScoreTable {
  /** Largest distance. */
  readonly far: number;
  readonly prefixKeys: number;
}

/**
 * The same from gradients of scores, f32 [heads, rows, prefixKeys + keys], with segments and shifts as of attention. Only those of
 * keys that a row attends to count.
 */
export function scoreTableGradient(
  scores: Tensor,
  { segments, shifts, ...attributes }: ScoreTable & { segments: Tensor; shifts: Tensor },
): Tensor {
  return apply(scoreTableOperation, [scores, segments, shifts], attributes);
}

const scoreTableOperation: Operation<ScoreTable> = {
  name: "attentionScoresTableBackward",
  run(inputs, { far, prefixKeys }, device) {
    const [scores, segments, shifts] = inputs.map((t) => contiguous(t)) as [Tensor, Tensor, Tensor];
    const [heads, rows, columns] = scores.shape as [number, number, number];
    if (rows === 0) return device.zeros([2 * far + 1, heads]);
    const slices = Math.ceil(rows / (SIZE * ROWS));
    const count = (2 * far + 1) * heads;
    const out = device.empty([2, slices * SIZE, count], "f32", "attention");
    const none = undefined;
    const absent = { q: none, k: none, v: none, bias: none, cotangent: none, states: none };
    const unused = { kv_heads: heads, q_row: 0, k_row: 0, v_row: 0, scale: 1 };
    const shared = { rows, heads, far, slices, columns, ...unused };
    const sources = [
      { column: 0, first: 0, keys: prefixKeys },
      { column: 2, first: prefixKeys, keys: columns - prefixKeys },
    ];
    for (const [i, source] of sources.entries()) {
      kernels[1].launch({
        tensors: { ...absent, segments, shifts, scores, out: out.at(i) },
        params: { ...shared, ...source },
        constants: { headDim: 1, softcap: 0 },
        workgroups: count * slices,
      });
    }
    return sum(out, [0, 1]).reshape([2 * far + 1, heads]);
  },
};

const kernels = { 1: tableKernel(1), 4: tableKernel(4) };

function tableKernel(lanes: 1 | 4) {
  const read = lanes === 4 ? "read4?" : "read?";
  return defineKernel({
    name: `attention_backward_table by ${lanes}`,
    bindings: {
      q: read,
      k: read,
      v: read,
      segments: "read",
      bias: "read?",
      shifts: "read",
      cotangent: read,
      states: "read4?",
      scores: "read?",
      out: "write",
    },
    params: { ...ATTENTION_PARAMS, slices: "u32", columns: "u32", first: "u32" },
    code({ constants, has }) {
      const { headDim, softcap } = constants as { headDim: number; softcap: number };
      const { step, vectors } = headSize(headDim, lanes);
      const given = has("scores");
      return /* wgsl */ `
${attentionHelpers(softcap, has("bias"))}
${given ? "" : ["q", "k", "v", "cotangent"].map((name) => loadVector(name, headDim, lanes)).join("\n")}
@compute @workgroup_size(${SIZE})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) local: u32) {
  let flat = flat_group(group, groups);
  let count = u32(2 * params.far + 1) * params.heads;
  let entry = flat % count;
  let lane = flat / count * ${SIZE}u + local;
  if (flat / count >= params.slices) { return; }
  let distance = i32(entry / params.heads) - params.far;
  let head = entry % params.heads;
  let kv = head / (params.heads / params.kv_heads);
  var sum = 0.0;
  for (var row = lane; row < params.rows; row += params.slices * ${SIZE}u) {
    // The keys of the row at this distance: one, or at the ends all those beyond.
    let at = distance - shifts_at(2u * row + params.column / 2u);
    let mine = segment(row);
    let begin = select(max(i32(mine.x), at), i32(mine.x), distance == -params.far);
    let stop = select(min(i32(mine.y), at + 1), i32(mine.y), distance == params.far);
    for (var j = begin; j < stop; j++) {
      let key = u32(j);
      ${
        given
          ? "sum += scores_at((head * params.rows + row) * params.columns + params.first + key);"
          : `
      let own = row * params.heads + head;
      var s = 0.0;
      var t = 0.0;
      for (var d = 0u; d < ${vectors}u; d++) {
        s += dot(q_vec(row * params.q_row + head * ${step}u, d), k_vec(key * params.k_row + kv * ${step}u, d));
        t += dot(cotangent_vec(own * ${step}u, d), v_vec(key * params.v_row + kv * ${step}u, d));
      }
      let state = states_at4(own);
      sum += decay(score(s * params.scale, row, head, key) - state.x) * state.y * (t - state.z);`
      }
    }
  }
  out_set(lane * count + entry, sum);
}`;
    },
  });
}
