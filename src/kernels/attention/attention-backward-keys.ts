import { defineKernel } from "../../tensor/kernel.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { SharedLoads } from "../matmul/shared-loads.ts";
import {
  type BackwardSource,
  backwardHelpers,
  count,
  HALF,
  OWNED_VECTORS,
  TILE,
  workgroupLanes,
} from "./attention-backward-call.ts";
import { sharedWidth } from "./attention-backward-queries.ts";
import {
  ATTENTION_PARAMS,
  attentionHelpers,
  attentionParams,
  headSize,
  lanesOf,
  loadVector,
  storeVector,
} from "./attention-call.ts";

export interface KeyGradients {
  readonly slices: number;
  /** f32 [rows * heads, 4]: see `rowStates`. */
  readonly states: Tensor;
  /** u32 [ceil(keys / lanes), 2]: see `rowReach`. */
  readonly reach: Tensor;
  /** f32 [slices, n]: where the gradients go, from elements `kAt` and `vAt` of a slice on; without these they are not wanted. */
  readonly out: Tensor;
  readonly kAt: number | undefined;
  readonly vAt: number | undefined;
}

/**
 * The gradients of keys and values: each invocation has a head of a key and walks the query heads that may have read it, whose
 * weights it computes again from their maximum and sum. Nothing is added up across invocations, so the order of sums is fixed.
 */
export function launchKeys(
  source: BackwardSource,
  { slices, states, reach, out, kAt, vAt }: KeyGradients,
): void {
  const { q, k, v, segments, headDim, softcap, bias, cotangent } = source;
  const lanes = lanesOf(source);
  const size = workgroupLanes(q.device);
  const params = attentionParams(source, lanes);
  const blocks = Math.ceil(params.keys / size);
  const parts = Math.ceil(headSize(headDim, lanes).vectors / OWNED_VECTORS);
  const forKeys = kAt !== undefined;
  kernels[lanes].launch({
    tensors: {
      q,
      k,
      v: forKeys ? v : undefined,
      segments,
      bias: bias?.table,
      shifts: bias?.shifts,
      cotangent,
      states,
      reach,
      out,
    },
    params: {
      ...params,
      blocks,
      slices,
      slice_step: out.dim(1) / lanes,
      k_at: (kAt ?? 0) / lanes,
      v_at: (vAt ?? 0) / lanes,
    },
    constants: {
      headDim,
      softcap,
      size,
      width: sharedWidth(source, size),
      forKeys,
      forValues: vAt !== undefined,
    },
    workgroups: blocks * params.kv_heads * slices * parts,
  });
}

const kernels = { 1: keyKernel(1), 4: keyKernel(4) };

function keyKernel(lanes: 1 | 4) {
  const read = lanes === 4 ? "read4" : "read";
  return defineKernel({
    name: `attention_backward_keys by ${lanes}`,
    bindings: {
      q: read,
      k: read,
      v: lanes === 4 ? "read4?" : "read?",
      segments: "read",
      bias: "read?",
      shifts: "read?",
      cotangent: read,
      states: "read4",
      reach: "read",
      out: lanes === 4 ? "write4" : "write",
    },
    params: {
      ...ATTENTION_PARAMS,
      blocks: "u32",
      slices: "u32",
      slice_step: "u32",
      k_at: "u32",
      v_at: "u32",
    },
    code({ constants, has }) {
      const { headDim, softcap, size, width, forKeys, forValues } = constants as Record<
        "headDim" | "softcap" | "size" | "width",
        number
      > &
        Record<"forKeys" | "forValues", boolean>;
      const shared = new SharedLoads(width);
      const { step, vectors } = headSize(headDim, lanes);
      const owned = Math.min(vectors, OWNED_VECTORS);
      const each = (line: (d: number) => string) => count(owned).map(line).join("\n");
      const perPair = (line: (i: number) => string) => count(TILE).map(line).join("\n");
      const perHalf = (line: (i: number) => string, between = "\n") => count(HALF).map(line).join(between);
      const ifKeys = (text: string) => (forKeys ? text : "");
      const ifValues = (text: string) => (forValues ? text : "");
      /** Where the pairs that are loaded lie. */
      const bases = (first: string, pairs: number) =>
        shared.perLoad(
          pairs,
          (i) => `
      let pair${i} = min(${first} + ${shared.index(i)}, end - 1u);
      let row${i} = pair${i} / per_kv;
      let head${i} = kv * per_kv + pair${i} % per_kv;
      let q_base${i} = row${i} * params.q_row + head${i} * ${step}u;
      let c_base${i} = (row${i} * params.heads + head${i}) * ${step}u;`,
        );
      return /* wgsl */ `
${shared.enable}
${attentionHelpers(softcap, has("bias"))}
${backwardHelpers(softcap)}
${["q", "k", ...(forKeys ? ["v"] : []), "cotangent"].map((name) => loadVector(name, headDim, lanes)).join("\n")}
${storeVector("out", headDim, lanes)}
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
  if (part >= ${Math.ceil(vectors / owned)}u) { return; }
  let per_kv = params.heads / params.kv_heads;
  let key = min(block * ${size}u + lane, params.keys - 1u);
  let k_base = key * params.k_row + kv * ${step}u;
  ${ifKeys(`let v_base = key * params.v_row + kv * ${step}u;`)}
${each((d) => `  ${ifKeys(`var dk${d} = vec4f();`)} ${ifValues(`var dv${d} = vec4f();`)}`)}

  // Pairs of a row and one of the heads that read head kv.
  let start = reach_at(2u * block) * per_kv;
  let length = reach_at(2u * block + 1u) * per_kv - start;
  let end = start + length * (slice + 1u) / params.slices;
  for (var p = start + length * slice / params.slices; p < end; p += ${TILE}u) {
    ${bases("p", TILE)}
${shared.perLoad(
  TILE,
  (i) => `    let segment${i} = select(vec2u(), segment(row${i}), p + ${shared.index(i)} < end);
    let state${i} = states_at4(row${i} * params.heads + head${i});
    var largest${i} = vec4u();`,
)}
${perPair((i) => `    var s${i} = 0.0; ${ifKeys(`var t${i} = 0.0;`)}`)}
    for (var d = 0u; d < ${vectors}u; d++) {
      let k = k_vec(k_base, d);
${shared.perLoad(
  TILE,
  (i) => `      let q${i} = q_vec(q_base${i}, d);
      let c${i} = cotangent_vec(c_base${i}, d);
      largest${i} = max(largest${i}, max(magnitude(q${i}), magnitude(c${i})));`,
)}
${perPair((i) => `      s${i} += dot(k, ${shared.value("q", i)});`)}
${ifKeys(`      let v = v_vec(v_base, d);
${perPair((i) => `      t${i} += dot(v, ${shared.value("c", i)});`)}`)}
    }
${shared.perLoad(TILE, (i) => `    let broken${i} = select(0u, 1u, any(largest${i} >= vec4u(0x7f800000u)));`)}
${perPair(
  (i) => `    {
      let mine = ${shared.value("segment", i)};
      let state = ${shared.value("state", i)};
      let broken = ${shared.value("broken", i)};
      let inside = key >= mine.x && key < mine.y;
      let x = s${i} * params.scale;
      var weight = decay(score(x, (p + ${i}u) / per_kv, kv * per_kv + (p + ${i}u) % per_kv, key) - state.x) * state.y;
      if (broken != 0u) { weight = nan(); }
      s${i} = select(0.0, weight, inside);
      ${ifKeys(`t${i} = select(0.0, weight * (t${i} - state.z) * slope(x), inside);`)}
    }`,
)}
    for (var first = p; first < min(p + ${TILE}u, end); first += ${HALF}u) {
      ${bases("first", HALF)}
${each(
  (d) => `      {
${ifKeys(`${shared.perLoad(HALF, (i) => `        let q${i} = regular(q_vec(q_base${i}, first_vector + ${d}u));`)}
${perHalf((i) => `        dk${d} = fma(vec4f(t${i}), ${shared.value("q", i)}, dk${d});`)}`)}
${ifValues(`${shared.perLoad(HALF, (i) => `        let c${i} = regular(cotangent_vec(c_base${i}, first_vector + ${d}u));`)}
${perHalf((i) => `        dv${d} = fma(vec4f(s${i}), ${shared.value("c", i)}, dv${d});`)}`)}
      }`,
)}
      ${perHalf((i) => `s${i} = s${i + HALF}; ${ifKeys(`t${i} = t${i + HALF};`)}`, " ")}
    }
  }

  if (block * ${size}u + lane >= params.keys) { return; }
  let place = slice * params.slice_step + (key * params.kv_heads + kv) * ${step}u;
${each(
  (d) => `  ${ifKeys(`out_set_vec(place + params.k_at, first_vector + ${d}u, dk${d} * params.scale);`)}
  ${ifValues(`out_set_vec(place + params.v_at, first_vector + ${d}u, dv${d});`)}`,
)}
}`;
    },
  });
}
