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
      const ifKeys = (text: string) => (forKeys ? text : "");
      const ifValues = (text: string) => (forValues ? text : "");
      /** Makes the sums of a pair weights. */
      const weigh = (i: number, at: { pair: string; segment: string; state: string }) => `
      {
        let mine = ${at.segment};
        let state = ${at.state};
        let inside = (key >= mine.x) & (key < mine.y);
        let x = s${i} * params.scale;
        let scored = score(x, ${at.pair} / per_kv, kv * per_kv + ${at.pair} % per_kv, key);
        s${i} = select(0.0, decay(scored - state.x) * state.y, inside);
        ${ifKeys(`t${i} = select(0.0, s${i} * (t${i} - state.z) * slope(x), inside);`)}
      }`;
      const loadOwned = (name: "q" | "cotangent") =>
        shared.perLoad(
          owned,
          (i) => `      let ${name}${i} =
        regular(${name}_vec(${name[0]}_base, min(first_vector + ${shared.index(i)}, ${vectors - 1}u)));`,
        );
      /** Where software drivers share loads, all pairs are weighed at once. */
      const together = width > 1;
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
${shared.perLoad(
  TILE,
  (i) => `    let pair${i} = min(p + ${shared.index(i)}, end - 1u);
    let row${i} = pair${i} / per_kv;
    let head${i} = kv * per_kv + pair${i} % per_kv;
    let q_base${i} = row${i} * params.q_row + head${i} * ${step}u;
    let c_base${i} = (row${i} * params.heads + head${i}) * ${step}u;
    ${
      together
        ? `let segment${i} = segment(row${i});
    let state${i} = states_at4(row${i} * params.heads + head${i});`
        : ""
    }`,
)}
${perPair((i) => `    var s${i} = 0.0; ${ifKeys(`var t${i} = 0.0;`)}`)}
    for (var d = 0u; d < ${vectors}u; d++) {
      let k = k_vec(k_base, d);
${shared.perLoad(
  TILE,
  (i) => `      let q${i} = q_vec(q_base${i}, d);
      ${ifKeys(`let c${i} = cotangent_vec(c_base${i}, d);`)}`,
)}
${perPair((i) => `      s${i} = add_dot(s${i}, k, ${shared.value("q", i)});`)}
${ifKeys(`      let v = v_vec(v_base, d);
${perPair((i) => `      t${i} = add_dot(t${i}, v, ${shared.value("c", i)});`)}`)}
    }
${
  together
    ? perPair((i) =>
        weigh(i, {
          pair: `(p + ${i}u)`,
          segment: shared.value("segment", i),
          state: shared.value("state", i),
        }),
      )
    : ""
}
    for (var pair = p; pair < min(p + ${TILE}u, end); pair++) {
      let row = pair / per_kv;
      let head = kv * per_kv + pair % per_kv;
      ${together ? "" : weigh(0, { pair: "pair", segment: "segment(row)", state: "states_at4(row * params.heads + head)" })}
      let q_base = row * params.q_row + head * ${step}u;
      let c_base = (row * params.heads + head) * ${step}u;
${ifKeys(`${loadOwned("q")}
${each((d) => `      dk${d} = fma(vec4f(t0), ${shared.value("q", d)}, dk${d});`)}`)}
${ifValues(`${loadOwned("cotangent")}
${each((d) => `      dv${d} = fma(vec4f(s0), ${shared.value("cotangent", d)}, dv${d});`)}`)}
      ${perPair((i) => (i + 1 < TILE ? `s${i} = s${i + 1}; ${ifKeys(`t${i} = t${i + 1};`)}` : ""))}
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
