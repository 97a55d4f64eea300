import { defineKernel } from "../../tensor/kernel.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { SharedLoads } from "../matmul/shared-loads.ts";
import {
  type BackwardSource,
  backwardHelpers,
  count,
  OWNED_VECTORS,
  TILE,
  workgroupLanes,
} from "./attention-backward-call.ts";
import {
  ATTENTION_PARAMS,
  attentionHelpers,
  attentionParams,
  headSize,
  LOWEST,
  lanesOf,
  loadVector,
  storeVector,
} from "./attention-call.ts";

export interface QueryGradient {
  readonly slices: number;
  /** f32 [rows * heads]: sums of cotangent * output. */
  readonly delta: Tensor;
  /** f32 [slices, rows, heads * headDim]: not divided by the sum of weights unless `whole`. */
  readonly out: Tensor | undefined;
  /** f32 [slices, rows * heads, 2]: as of attention. */
  readonly stats: Tensor;
  /** These are all keys: the result is the gradient. */
  readonly whole: boolean;
}

/**
 * What attention's scores were, and the gradient of the queries: each invocation has a query head of a row and walks the keys as
 * attention does, with a running maximum, and what keys add to the gradient in place of values.
 */
export function launchQueries(
  source: BackwardSource,
  { slices, delta, out, stats, whole }: QueryGradient,
): void {
  const { q, k, v, segments, headDim, softcap, bias, cotangent } = source;
  const lanes = lanesOf(source);
  const size = workgroupLanes(q.device);
  const params = attentionParams(source, lanes);
  const blocks = Math.ceil((params.rows * params.heads) / params.kv_heads / size);
  const parts = out ? Math.ceil(headSize(headDim, lanes).vectors / OWNED_VECTORS) : 1;
  kernels[lanes].launch({
    tensors: {
      q,
      k,
      v: out && v,
      segments,
      bias: bias?.table,
      shifts: bias?.shifts,
      cotangent: out && cotangent,
      delta: out && delta,
      out,
      stats,
    },
    params: { ...params, blocks, slices, whole: whole ? 1 : 0 },
    constants: { headDim, softcap, size, width: sharedWidth(source, size) },
    workgroups: blocks * params.kv_heads * slices * parts,
  });
}

/** GPUs serve loads of the same address by a whole warp at once. */
export function sharedWidth({ q: { device } }: BackwardSource, size: number): number {
  return device.info.kernels === "register" ? SharedLoads.widthOn(device, size) : 1;
}

const kernels = { 1: queryKernel(1), 4: queryKernel(4) };

function queryKernel(lanes: 1 | 4) {
  return defineKernel({
    name: `attention_backward_queries by ${lanes}`,
    bindings: {
      q: lanes === 4 ? "read4" : "read",
      k: lanes === 4 ? "read4" : "read",
      v: lanes === 4 ? "read4?" : "read?",
      segments: "read",
      bias: "read?",
      shifts: "read?",
      cotangent: lanes === 4 ? "read4?" : "read?",
      delta: "read?",
      out: lanes === 4 ? "write4?" : "write?",
      stats: "write",
    },
    params: { ...ATTENTION_PARAMS, blocks: "u32", slices: "u32", whole: "u32" },
    code({ constants, has }) {
      const { headDim, softcap, size, width } = constants as Record<
        "headDim" | "softcap" | "size" | "width",
        number
      >;
      const shared = new SharedLoads(width);
      const gradient = has("out");
      const { step, vectors } = headSize(headDim, lanes);
      const owned = gradient ? Math.min(vectors, OWNED_VECTORS) : 0;
      const each = (line: (d: number) => string) => count(owned).map(line).join("\n");
      const perKey = (line: (i: number) => string, between = "\n") => count(TILE).map(line).join(between);
      const ifGradient = (text: string) => (gradient ? text : "");
      const read = gradient ? ["q", "k", "v", "cotangent"] : ["q", "k"];
      return /* wgsl */ `
${shared.enable}
${attentionHelpers(softcap, has("bias"))}
${backwardHelpers(softcap)}
${read.map((name) => loadVector(name, headDim, lanes)).join("\n")}
${ifGradient(storeVector("out", headDim, lanes))}
@compute @workgroup_size(${size})
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
  ${shared.parameter}
) {
  let flat = flat_group(group, groups);
  let block = flat % params.blocks;
  let kv = flat / params.blocks % params.kv_heads;
  let slice = flat / params.blocks / params.kv_heads % params.slices;
  // The last part of a head starts earlier rather than being shorter.
  let part = flat / params.blocks / params.kv_heads / params.slices;
  let first_vector = min(part * ${owned}u, ${vectors - owned}u);
  if (part >= ${owned > 0 ? Math.ceil(vectors / owned) : 1}u) { return; }
  let per_kv = params.heads / params.kv_heads;
  let pairs = params.rows * per_kv; // of a row and one of the heads that read head kv
  let first_pair = block * ${size}u;
  let reach = reach_of(first_pair / per_kv, (min(first_pair + ${size}u, pairs) - 1u) / per_kv + 1u);

  let pair = min(first_pair + lane, pairs - 1u);
  let row = pair / per_kv;
  let head = kv * per_kv + pair % per_kv;
  let mine = segment(row);
  let q_base = row * params.q_row + head * ${step}u;
  let own = row * params.heads + head;
  ${ifGradient("let delta = delta_at(own);")}
${each((d) => `  var a${d} = vec4f();`)}
  var highest = ${LOWEST};
  var total = 0.0;
  var spoilt = false;

  let length = reach.y - reach.x;
  let end = reach.x + length * (slice + 1u) / params.slices;
  for (var j = reach.x + length * slice / params.slices; j < end; j += ${TILE}u) {
${shared.perLoad(
  TILE,
  (i) => `    let key${i} = min(j + ${shared.index(i)}, end - 1u);
    let k_base${i} = key${i} * params.k_row + kv * ${step}u;
    ${ifGradient(`let v_base${i} = key${i} * params.v_row + kv * ${step}u;`)}`,
)}
${perKey((i) => `    var s${i} = 0.0; ${ifGradient(`var t${i} = 0.0;`)}`)}
    for (var d = 0u; d < ${vectors}u; d++) {
      let q = q_vec(q_base, d);
${shared.perLoad(TILE, (i) => `      let k${i} = k_vec(k_base${i}, d);`)}
${perKey((i) => `      s${i} = add_dot(s${i}, q, ${shared.value("k", i)});`)}
${ifGradient(`      let c = cotangent_vec(own * ${step}u, d);
${shared.perLoad(TILE, (i) => `      let v${i} = v_vec(v_base${i}, d);`)}
${perKey((i) => `      t${i} = add_dot(t${i}, c, ${shared.value("v", i)});`)}`)}
    }
    let begin = max(mine.x, j);
    let stop = min(mine.y, min(end, j + ${TILE}u));
    // By & rather than &&, whose branches take SwiftShader a minute to compile.
${perKey((i) => `    let inside${i} = (j + ${i}u >= begin) & (j + ${i}u < stop);`)}
${ifGradient(perKey((i) => `    t${i} = (t${i} - delta) * slope(s${i} * params.scale);`))}
${perKey((i) => `    s${i} = select(${LOWEST}, score(s${i} * params.scale, row, head, j + ${i}u), inside${i});`)}
    let m = ${perKey((i) => `max(s${i}, `, "")}highest${")".repeat(TILE)};
    let shrink = decay(highest - m);
    highest = m;
    spoilt = spoilt | ${perKey((i) => `spoils(s${i})`, " | ")};
${perKey((i) => `    s${i} = select(0.0, decay(s${i} - m), inside${i});`)}
    total = total * shrink + ${perKey((i) => `s${i}`, " + ")};
${ifGradient(`
${perKey((i) => `    t${i} = select(0.0, s${i} * t${i}, inside${i});`)}
${each((d) => `    a${d} *= shrink;`)}
    for (var key = j; key < min(j + ${TILE}u, end); key++) {
      let base = key * params.k_row + kv * ${step}u;
${shared.perLoad(owned, (i) => `      let loaded${i} = regular(k_vec(base, min(first_vector + ${shared.index(i)}, ${vectors - 1}u)));`)}
${each((d) => `      a${d} = fma(vec4f(t0), ${shared.value("loaded", d)}, a${d});`)}
      ${perKey((i) => (i + 1 < TILE ? `t${i} = t${i + 1};` : ""), " ")}
    }`)}
  }

  if (first_pair + lane >= pairs) { return; }
  if (spoilt) { total = nan(); }
  let place = slice * params.rows * params.heads + own;
  if (part == 0u) {
    stats_set(2u * place, highest);
    stats_set(2u * place + 1u, total);
  }
  ${ifGradient(`let share = params.scale * select(1.0, select(1.0 / total, 0.0, total == 0.0), params.whole != 0u);`)}
${each((d) => `  out_set_vec(place * ${step}u, first_vector + ${d}u, a${d} * share);`)}
}`;
    },
  });
}
