import { defineKernel } from "../../tensor/kernel.ts";
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
 * Attention for GPUs, after FlashAttention-2 (Dao 2023, arXiv 2307.08691). A workgroup takes a tile of query heads that
 * share a key head, of neighbouring rows, and walks the keys in tiles of 32 that it copies to workgroup memory, at most
 * 64 dimensions at a time. Its 8 x 8 threads each compute, for every eighth query of the tile, the scores of every
 * eighth key and the weighted values of every eighth vector of four dimensions.
 */
const SIDE = 8;
const KEYS = 4 * SIDE;
const CHUNK_VECTORS = 16;

interface Tile {
  /** Queries per thread. */
  queries: number;
  /** Rounds in which the dimensions of a head go through workgroup memory. */
  chunks: number;
  /** Vectors of four dimensions per round. */
  vectors: number;
  /** Vectors between rows of a tile in workgroup memory: odd, so that rows start in different banks. */
  stride: number;
}

function tileOf({ q, k, headDim }: AttentionSource): Tile {
  const { vectors: all } = headSize(headDim, 4);
  const chunks = Math.ceil(all / CHUNK_VECTORS);
  const vectors = Math.ceil(all / chunks);
  const pairs = (q.dim(0) * q.dim(1)) / k.dim(1);
  const roomy = q.device.gpu.limits.maxComputeWorkgroupStorageSize >= 24 * 1024;
  const queries = pairs <= SIDE ? 1 : pairs <= 2 * SIDE || !roomy || chunks > 2 ? 2 : 4;
  return { queries, chunks, vectors, stride: vectors | 1 };
}

/** Query heads that a workgroup takes. */
export function workgroupPairs(source: AttentionSource): number {
  return tileOf(source).queries * SIDE;
}

export function launchWorkgroup(source: AttentionSource, { slices, out, stats }: AttentionOutput): void {
  const { q, k, v, segments, headDim, softcap, bias } = source;
  const lanes = lanesOf(source);
  const params = attentionParams(source, lanes);
  const tile = tileOf(source);
  const blocks = Math.ceil((params.rows * params.heads) / params.kv_heads / (tile.queries * SIDE));
  kernels[lanes].launch({
    tensors: { q, k, v, segments, bias: bias?.table, shifts: bias?.shifts, out, stats },
    params: { ...params, blocks, slices, side: SIDE, tile_keys: KEYS, tile_vectors: tile.vectors },
    constants: { headDim, softcap, ...tile },
    workgroups: blocks * params.kv_heads * slices,
  });
}

const kernels = { 1: workgroupKernel(1), 4: workgroupKernel(4) };

function workgroupKernel(lanes: 1 | 4) {
  const read = lanes === 4 ? "read4" : "read";
  return defineKernel({
    name: `attention_workgroup by ${lanes}`,
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
    params: {
      ...ATTENTION_PARAMS,
      blocks: "u32",
      slices: "u32",
      // Bounds of loops: as constants, they would tempt software drivers to unroll, and to compile for a minute.
      side: "u32",
      tile_keys: "u32",
      tile_vectors: "u32",
    },
    code({ constants, has }) {
      const { headDim, softcap, queries, chunks, vectors, stride } = constants as Tile & {
        headDim: number;
        softcap: number;
      };
      const shaped = softcap > 0 || has("bias");
      const { step, vectors: all } = headSize(headDim, lanes);
      const owned = Math.ceil(vectors / SIDE); // per thread and round
      const tileRows = queries * SIDE;
      const count = (n: number) => Array.from({ length: n }, (_, i) => i);
      const perQuery = (line: (r: number) => string) => count(queries).map(line).join("\n");
      const perOwned = (line: (i: number) => string) => count(owned).map(line).join("\n");
      const perKey = (line: (c: number) => string, between = ", ") => count(4).map(line).join(between);

      /** Copies rows of a tile to workgroup memory, and zeros where there are none. */
      const copy = (tile: string, rows: number, chunk: string, load: (row: string, d: string) => string) => `
    for (var i = local; i < ${rows * vectors}u; i += ${SIDE * SIDE}u) {
      let row = i / ${vectors}u;
      let d = ${chunk} * ${vectors}u + i % ${vectors}u;
      var value = vec4f();
      if (d < ${all}u) { ${load("row", "d")} }
      ${tile}[row * ${stride}u + i % ${vectors}u] = value;
    }`;
      const copyQueries = copy(
        "q_tile",
        tileRows,
        "chunk",
        (row, d) => `
        let pair = min(first_pair + ${row}, pairs - 1u);
        value = q_vec(pair / per_kv * params.q_row + (kv * per_kv + pair % per_kv) * ${step}u, ${d}) * params.scale;`,
      );
      const copyKeys = (name: "k" | "v", chunk: string) =>
        copy(
          "kv_tile",
          KEYS,
          chunk,
          (row, d) => `if (j + ${row} < end) {
          value = ${name}_vec((j + ${row}) * params.${name}_row + kv * ${step}u, ${d});
          ${
            name === "v"
              ? `let bits = bitcast<vec4u>(value) & vec4u(0x7f800000u);
          if (any(bits == vec4u(0x7f800000u))) { atomicStore(&irregular, 1u); }`
              : ""
          }
        }`,
        );
      const sum = (r: number, chunk: number, weight: string) =>
        perOwned((i) => {
          const a = `a${r}_${chunk * owned + i}`;
          return `${a} = fma(vec4f(${weight}), v${i}, ${a});`;
        });
      const values = perOwned((i) => `let v${i} = kv_tile[row + min(tx + ${i * SIDE}u, ${vectors - 1}u)];`);
      const mix = (chunk: number) => `
      for (var g = 0u; g < params.side; g++) {
        ${perQuery((r) => `let p${r} = p_tile[(ty + ${r * SIDE}u) * ${SIDE}u + g];`)}
        ${perKey(
          (c) => `{
          let row = (g + ${c * SIDE}u) * ${stride}u;
          ${values}
          ${perQuery((r) => sum(r, chunk, `p${r}[${c}]`))}
        }`,
          "\n",
        )}
      }`;
      const guardedMix = (chunk: number) => `
      for (var key = 0u; key < params.tile_keys; key++) {
        let row = key * ${stride}u;
        ${values}
        ${perQuery(
          (r) => `
        if (attends(mine${r}, j + key)) {
          let p = p_tile[(ty + ${r * SIDE}u) * ${SIDE}u + key % ${SIDE}u][key / ${SIDE}u];
          ${sum(r, chunk, "p")}
        }`,
        )}
      }`;

      return /* wgsl */ `
${attentionHelpers(softcap, has("bias"))}
${["q", "k", "v"].map((name) => loadVector(name, headDim, lanes)).join("\n")}
${storeVector("out", headDim, lanes)}
fn attends(mine: vec2u, key: u32) -> bool { return key >= mine.x && key < mine.y; }

var<workgroup> q_tile: array<vec4f, ${tileRows * stride}>;
var<workgroup> kv_tile: array<vec4f, ${KEYS * stride}>;
// Weights; element c of vector tx of a row is that of key tx + 8 c of the tile.
var<workgroup> p_tile: array<vec4f, ${tileRows * SIDE}>;
var<workgroup> row_values: array<f32, ${tileRows * SIDE}>;
// Set once a value is NaN or infinite: from then on, queries keep away from values that they do not attend to.
var<workgroup> irregular: atomic<u32>;

@compute @workgroup_size(${SIDE * SIDE})
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let flat = flat_group(group, groups);
  let block = flat % params.blocks;
  let kv = flat / params.blocks % params.kv_heads;
  let slice = flat / params.blocks / params.kv_heads;
  if (slice >= params.slices) { return; }
  let per_kv = params.heads / params.kv_heads;
  let pairs = params.rows * per_kv; // of a row and one of the heads that read head kv
  let first_pair = block * ${tileRows}u;
  let reach = reach_of(first_pair / per_kv, (min(first_pair + ${tileRows}u, pairs) - 1u) / per_kv + 1u);
  let length = reach.y - reach.x;
  let end = reach.x + length * (slice + 1u) / params.slices;

  let tx = local % ${SIDE}u;
  let ty = local / ${SIDE}u;
${perQuery(
  (r) => `
  let pair${r} = min(first_pair + ty + ${r * SIDE}u, pairs - 1u);
  var mine${r} = segment(pair${r} / per_kv);
  mine${r}.y = min(mine${r}.y, end);
  var highest${r} = ${LOWEST};
  var total${r} = 0.0; // over the keys of this thread
  ${count(chunks * owned)
    .map((i) => `var a${r}_${i} = vec4f();`)
    .join(" ")}`,
)}
  for (var j = reach.x + length * slice / params.slices; j < end; j += ${KEYS}u) {
    ${perQuery((r) => `var s${r} = vec4f();`)}
    for (var chunk = 0u; chunk < ${chunks}u; chunk++) {
      ${copyQueries}
      ${copyKeys("k", "chunk")}
      workgroupBarrier();
      for (var d = 0u; d < params.tile_vectors; d++) {
        ${perKey((c) => `let k${c} = kv_tile[(tx + ${c * SIDE}u) * ${stride}u + d];`, "\n")}
        ${perQuery((r) => `let q${r} = q_tile[(ty + ${r * SIDE}u) * ${stride}u + d]; s${r} += vec4f(${perKey((c) => `dot(q${r}, k${c})`)});`)}
      }
      workgroupBarrier();
    }
    let keys = vec4u(j + tx) + vec4u(0u, ${SIDE}u, ${2 * SIDE}u, ${3 * SIDE}u);
    ${perQuery(
      (r) => `
    let inside${r} = (keys >= vec4u(mine${r}.x)) & (keys < vec4u(mine${r}.y));
    s${r} = select(vec4f(${LOWEST}), ${shaped ? `vec4f(${perKey((c) => `score(s${r}[${c}], pair${r} / per_kv, kv * per_kv + pair${r} % per_kv, keys[${c}])`)})` : `s${r}`}, inside${r});
    row_values[(ty + ${r * SIDE}u) * ${SIDE}u + tx] = max(max(s${r}.x, s${r}.y), max(s${r}.z, s${r}.w));`,
    )}
    workgroupBarrier();
    ${perQuery(
      (r) => `
    var m${r} = highest${r};
    for (var i = 0u; i < params.side; i++) { m${r} = max(m${r}, row_values[(ty + ${r * SIDE}u) * ${SIDE}u + i]); }
    let shrink${r} = decay(highest${r} - m${r});
    highest${r} = m${r};
    let w${r} = select(vec4f(), vec4f(${perKey((c) => `decay(s${r}[${c}] - m${r})`)}), inside${r});
    total${r} = total${r} * shrink${r} + dot(w${r}, vec4f(1.0));
    if (${perKey((c) => `spoils(s${r}[${c}])`, " || ")}) { total${r} = nan(); }
    p_tile[(ty + ${r * SIDE}u) * ${SIDE}u + tx] = w${r};
    ${count(chunks * owned)
      .map((i) => `a${r}_${i} *= shrink${r};`)
      .join(" ")}`,
    )}
    ${count(chunks)
      .map(
        (chunk) => `
    ${copyKeys("v", `${chunk}u`)}
    workgroupBarrier();
    if (atomicLoad(&irregular) == 0u) {
      ${mix(chunk)}
    } else {
      ${guardedMix(chunk)}
    }
    workgroupBarrier();`,
      )
      .join("\n")}
  }
${perQuery((r) => `  row_values[(ty + ${r * SIDE}u) * ${SIDE}u + tx] = total${r};`)}
  workgroupBarrier();
${perQuery(
  (r) => `
  if (first_pair + ty + ${r * SIDE}u < pairs) {
    var total = 0.0;
    for (var i = 0u; i < params.side; i++) { total += row_values[(ty + ${r * SIDE}u) * ${SIDE}u + i]; }
    let place = (slice * params.rows + pair${r} / per_kv) * params.heads + kv * per_kv + pair${r} % per_kv;
    ${
      has("stats")
        ? `if (tx == 0u) {
      stats_set(2u * place, highest${r});
      stats_set(2u * place + 1u, total);
    }
    let share = 1.0;`
        : "let share = select(1.0 / total, 0.0, total == 0.0);"
    }
    ${count(chunks * owned)
      .map((n) => {
        const inChunk = `tx + ${(n % owned) * SIDE}u`;
        const d = `${Math.floor(n / owned) * vectors}u + ${inChunk}`;
        return `if (${inChunk} < ${vectors}u && ${d} < ${all}u) { out_set_vec(place * ${step}u, ${d}, a${r}_${n} * share); }`;
      })
      .join("\n    ")}
  }`,
)}
}`;
    },
  });
}
