import { defineKernel } from "../tensor/kernel.ts";
import type { Tensor } from "../tensor/tensor.ts";
import {
  ATTENTION_HELPERS,
  ATTENTION_PARAMS,
  type AttentionCall,
  attentionParams,
  headSize,
  LOWEST,
  loadVector,
  storeVector,
} from "./attention-call.ts";

/**
 * Attention for drivers that run on CPU cores. Each invocation keeps one query head's q, its running maximum, sum and
 * weighted values in registers. The invocations of a workgroup are the query heads that share a key head, of
 * neighbouring rows, so that they walk the same keys and every load of keys and values is uniform. No barriers.
 */
export const REGISTER_LANES = 8;

const kernels = { 1: registerKernel(1), 4: registerKernel(4) };

export function launchRegisterAttention(
  call: AttentionCall,
  slices: number,
  out: Tensor,
  stats: Tensor | undefined,
): void {
  const { q, k, v, segments, prefix, rows, heads, kvHeads, headDim, lanes } = call;
  const blocks = Math.ceil((rows * heads) / kvHeads / REGISTER_LANES);
  kernels[lanes].launch({
    tensors: { q, k, v, segments, prefix_k: prefix?.k, prefix_v: prefix?.v, out, stats },
    params: { ...attentionParams(call), blocks, slices },
    constants: { headDim },
    workgroups: blocks * kvHeads * slices,
  });
}

function registerKernel(lanes: 1 | 4) {
  const read = lanes === 4 ? "read4" : "read";
  const optional = lanes === 4 ? "read4?" : "read?";
  return defineKernel({
    name: `attention_register by ${lanes}`,
    bindings: {
      q: read,
      k: read,
      v: read,
      segments: "read",
      prefix_k: optional,
      prefix_v: optional,
      out: lanes === 4 ? "write4" : "write",
      stats: "write?",
    },
    params: { ...ATTENTION_PARAMS, blocks: "u32", slices: "u32" },
    code({ constants, has }) {
      const { headDim } = constants as { headDim: number };
      const { step, vectors } = headSize(headDim, lanes);
      const each = (line: (d: number) => string) =>
        Array.from({ length: vectors }, (_, d) => line(d)).join("\n");
      const sources = has("prefix_k") ? ["q", "k", "v", "prefix_k", "prefix_v"] : ["q", "k", "v"];
      // Long heads take fewer keys at a time, so that the code stays short enough to compile quickly.
      const keys = vectors <= 16 ? 4 : vectors <= 32 ? 2 : 1;

      /** Takes `count` keys from row `j` on into the running sums. */
      const take = (count: number, k: string, v: string) => {
        const key = Array.from({ length: count }, (_, i) => i);
        const perKey = (line: (i: number) => string) => key.map(line).join("\n");
        return `
${perKey((i) => `let k${i} = (j + ${i}u) * params.${k}_row + kv * ${step}u; let v${i} = (j + ${i}u) * params.${v}_row + kv * ${step}u; var s${i} = 0.0;`)}
${each((d) => perKey((i) => `s${i} += dot(q${d}, ${k}_vec(k${i}, ${d}u));`))}
let m = ${key.reduce((m, i) => `max(${m}, s${i})`, "highest")};
let shrink = decay(highest - m);
${perKey((i) => `let p${i} = decay(s${i} - m);`)}
highest = m;
total = total * shrink + ${key.map((i) => `p${i}`).join(" + ")};
spoilt = spoilt || ${key.map((i) => `spoils(s${i})`).join(" || ")};
${each((d) => `a${d} *= shrink;\n${perKey((i) => `a${d} = fma(vec4f(p${i}), ${v}_vec(v${i}, ${d}u), a${d});`)}`)}`;
      };
      const walk = (k: string, v: string, first: string, end: string, mine: string, all: string) => `
  for (var j = ${first}; j < ${end};) {
    if (j >= ${all}.x && j + ${keys}u <= min(${all}.y, ${end})) {
      ${take(keys, k, v)}
      j += ${keys}u;
    } else {
      // Rows that only some of the invocations attend to may hold anything, NaN included: the others keep away.
      if (j >= ${mine}.x && j < ${mine}.y) {
        ${take(1, k, v)}
      }
      j += 1u;
    }
  }`;

      return /* wgsl */ `
${ATTENTION_HELPERS}
${sources.map((name) => loadVector(name, headDim, lanes)).join("\n")}
${storeVector("out", headDim, lanes)}
@compute @workgroup_size(${REGISTER_LANES})
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let flat = flat_group(group, groups);
  let block = flat % params.blocks;
  let kv = flat / params.blocks % params.kv_heads;
  let slice = flat / params.blocks / params.kv_heads;
  if (slice >= params.slices) { return; }
  let per_kv = params.heads / params.kv_heads;
  let pairs = params.rows * per_kv; // of a row and one of the heads that read head kv
  let first_pair = block * ${REGISTER_LANES}u;
  let reach = reach_of(first_pair / per_kv, (min(first_pair + ${REGISTER_LANES}u, pairs) - 1u) / per_kv + 1u);

  let pair = min(first_pair + lane, pairs - 1u);
  let row = pair / per_kv;
  let head = kv * per_kv + pair % per_kv;
  let mine = segment(row);
  let q_base = row * params.q_row + head * ${step}u;
${each((d) => `  let q${d} = q_vec(q_base, ${d}u) * params.scale; var a${d} = vec4f();`)}
  var highest = ${LOWEST};
  var total = 0.0;
  var spoilt = false;

  // This slice's part of the prefix rows followed by the own rows.
  let prefix_length = reach.any.y - reach.any.x;
  let length = prefix_length + reach.any.w - reach.any.z;
  let slice_start = length * slice / params.slices;
  let slice_end = length * (slice + 1u) / params.slices;
${
  has("prefix_k")
    ? `
  let prefix_from = reach.any.x + min(slice_start, prefix_length);
  let prefix_to = reach.any.x + min(slice_end, prefix_length);
  ${walk("prefix_k", "prefix_v", "prefix_from", "prefix_to", "mine.xy", "reach.all.xy")}`
    : ""
}
  let own_from = reach.any.z + max(slice_start, prefix_length) - prefix_length;
  let own_to = reach.any.z + max(slice_end, prefix_length) - prefix_length;
  ${walk("k", "v", "own_from", "own_to", "mine.zw", "reach.all.zw")}

  if (first_pair + lane >= pairs) { return; }
  if (spoilt) { total = nan(); }
  let place = (slice * params.rows + row) * params.heads + head;
  ${
    has("stats")
      ? `stats_set(2u * place, highest);
  stats_set(2u * place + 1u, total);
  let share = 1.0;`
      : "let share = select(1.0 / total, 0.0, total == 0.0);"
  }
${each((d) => `  out_set_vec(place * ${step}u, ${d}u, a${d} * share);`)}
}`;
    },
  });
}
