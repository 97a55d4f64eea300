import { defineKernel } from "../../tensor/kernel.ts";
import { SharedLoads } from "../matmul/shared-loads.ts";
import {
  ATTENTION_PARAMS,
  type AttentionOutput,
  type AttentionSource,
  attentionHelpers,
  attentionParams,
  headSize,
  LOWEST,
  lanesOf,
  loadVector,
  storeVector,
} from "./attention-call.ts";

/**
 * Attention for drivers that run on CPU cores. The invocations of a workgroup are the query heads that share a key head,
 * of neighbouring rows: they walk the same keys, and share the loads of keys and values. Each keeps its own
 * running maximum, sum, and up to 64 dimensions of weighted values in registers; longer heads are shared out over
 * several invocations, which all compute the scores. No barriers.
 */
export const REGISTER_PAIRS = 8;

/** Keys whose scores are computed together. */
const KEYS = 8;

/** Vectors of four dimensions that an invocation sums up; more would compile slowly and spill. */
const OWNED_VECTORS = 16;

const kernels = { 1: registerKernel(1), 4: registerKernel(4) };

export function launchRegister(source: AttentionSource, { slices, out, stats }: AttentionOutput): void {
  const { q, k, v, segments, headDim, softcap, bias } = source;
  const lanes = lanesOf(source);
  const params = attentionParams(source, lanes);
  const blocks = Math.ceil((params.rows * params.heads) / params.kv_heads / REGISTER_PAIRS);
  const parts = Math.ceil(headSize(headDim, lanes).vectors / OWNED_VECTORS);
  kernels[lanes].launch({
    tensors: { q, k, v, segments, bias: bias?.table, shifts: bias?.shifts, out, stats },
    params: { ...params, blocks, slices },
    constants: { headDim, softcap, width: SharedLoads.widthOn(q.device, REGISTER_PAIRS) },
    workgroups: blocks * params.kv_heads * slices * parts,
  });
}

function registerKernel(lanes: 1 | 4) {
  const read = lanes === 4 ? "read4" : "read";
  return defineKernel({
    name: `attention_register by ${lanes}`,
    bindings: {
      q: read,
      k: read,
      v: read,
      segments: "read",
      bias: "read?",
      shifts: "read?",
      out: lanes === 4 ? "write4" : "write",
      stats: "write?",
    },
    params: { ...ATTENTION_PARAMS, blocks: "u32", slices: "u32" },
    code({ constants, has }) {
      const { headDim, softcap, width } = constants as Record<"headDim" | "softcap" | "width", number>;
      const shared = new SharedLoads(width);
      const { step, vectors } = headSize(headDim, lanes);
      const owned = Math.min(vectors, OWNED_VECTORS);
      const each = (line: (d: number) => string) =>
        Array.from({ length: owned }, (_, d) => line(d)).join("\n");
      const perKey = (line: (i: number) => string, between = "\n") =>
        Array.from({ length: KEYS }, (_, i) => line(i)).join(between);
      return /* wgsl */ `
${shared.enable}
${attentionHelpers(softcap, has("bias"))}
${["q", "k", "v"].map((name) => loadVector(name, headDim, lanes)).join("\n")}
${storeVector("out", headDim, lanes)}
@compute @workgroup_size(${REGISTER_PAIRS})
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
  let pairs = params.rows * per_kv; // of a row and one of the heads that read head kv
  let first_pair = block * ${REGISTER_PAIRS}u;
  let first_row = first_pair / per_kv;
  let end_row = (min(first_pair + ${REGISTER_PAIRS}u, pairs) - 1u) / per_kv + 1u;
  let reach = reach_of(first_row, end_row);

  let pair = min(first_pair + lane, pairs - 1u);
  let row = pair / per_kv;
  let head = kv * per_kv + pair % per_kv;
  let mine = segment(row);
  let q_base = row * params.q_row + head * ${step}u;
${each((d) => `  var a${d} = vec4f();`)}
  var highest = ${LOWEST};
  var total = 0.0;
  var spoilt = false;

  let length = reach.y - reach.x;
  let end = reach.x + length * (slice + 1u) / params.slices;
  var j = reach.x + length * slice / params.slices;
  // No group of keys goes over into another sequence, so that a row's sums are the same whatever rows are beside it.
  var border = next_sequence(first_row, end_row, j);
  while (j < end) {
    let upto = min(min(end, j + ${KEYS}u), border);
${shared.perLoad(KEYS, (i) => `    let k_base${i} = min(j + ${shared.index(i)}, end - 1u) * params.k_row + kv * ${step}u;`)}
${perKey((i) => `    var s${i} = 0.0;`)}
    for (var d = 0u; d < ${vectors}u; d++) {
      let q = q_vec(q_base, d);
${shared.perLoad(KEYS, (i) => `      let k${i} = k_vec(k_base${i}, d);`)}
${perKey((i) => `      s${i} += dot(q, ${shared.value("k", i)});`)}
    }
    let begin = max(mine.x, j);
    let stop = min(mine.y, upto);
${perKey((i) => `    s${i} = select(${LOWEST}, score(s${i} * params.scale, row, head, j + ${i}u), j + ${i}u >= begin && j + ${i}u < stop);`)}
    let m = ${perKey((i) => `max(s${i}, `, "")}highest${")".repeat(KEYS)};
    let shrink = decay(highest - m);
    highest = m;
    spoilt = spoilt || ${perKey((i) => `spoils(s${i})`, " || ")};
${perKey((i) => `    s${i} = select(0.0, decay(s${i} - m), j + ${i}u >= begin && j + ${i}u < stop);`)}
    total = total * shrink + ${perKey((i) => `s${i}`, " + ")};
${each((d) => `    a${d} *= shrink;`)}
    for (var key = j; key < upto; key++) {
      let v_base = key * params.v_row + kv * ${step}u;
${shared.perLoad(owned, (i) => `      let loaded${i} = v_vec(v_base, min(first_vector + ${shared.index(i)}, ${vectors - 1}u));`)}
${each((d) => `      let v${d} = ${shared.value("loaded", d)};`)}
      // Keys that only other rows attend to may hold anything, NaN included: keep away from them.
      if (key >= begin && key < stop) {
${each((d) => `        a${d} = fma(vec4f(s0), v${d}, a${d});`)}
      }
      ${perKey((i) => (i + 1 < KEYS ? `s${i} = s${i + 1};` : ""), " ")}
    }
    if (upto == border) { border = next_sequence(first_row, end_row, border); }
    j = upto;
  }

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
${each((d) => `  out_set_vec(place * ${step}u, first_vector + ${d}u, a${d} * share);`)}
}`;
    },
  });
}
