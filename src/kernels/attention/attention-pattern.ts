import { ShapeError } from "../../errors.ts";
import { assertFloats } from "../../tensor/dtype.ts";
import { defineKernel } from "../../tensor/kernel.ts";
import { apply, type Operation } from "../../tensor/operation.ts";
import { showShape } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { contiguous } from "../movement/copy.ts";
import { softmax } from "../reduction/softmax.ts";
import {
  ATTENTION_PARAMS,
  type AttentionAttributes,
  type AttentionInputs,
  type AttentionOptions,
  attentionHelpers,
  attentionParams,
  attentionSources,
  checkAttention,
  type KeysAndValues,
  packAttention,
  pairArithmetic,
} from "./attention-call.ts";

/**
 * The three steps of attention one by one, for looking at and editing scores and patterns. Together they give what
 * `attention` gives, at the cost of heads * rows * keys numbers of memory. Columns are all rows of the prefix, if there
 * is one, followed by all rows of k.
 */

/**
 * Scaled scores, f32 [heads, rows, prefixKeys + keys], with -infinity where a row does not attend. Inputs (v is not
 * read and may be absent), options and errors are those of `attention`.
 */
export function attentionScores(
  {
    q,
    k,
    segments,
    prefix,
    bias,
  }: Omit<AttentionInputs, "v" | "prefix"> & { prefix?: Pick<KeysAndValues, "k"> },
  options: AttentionOptions,
): Tensor {
  const own = { q, k, v: k, segments, ...(bias && { bias }) };
  const inputs = prefix ? { ...own, prefix: { k: prefix.k, v: prefix.k } } : own;
  checkAttention("attentionScores", inputs, options);
  return apply(attentionScoresOperation, packAttention(inputs), { ...options, biased: bias !== undefined });
}

/** The softmax of scores [heads, rows, keys] over the keys; all 0 for a row without any. */
export function attentionPattern(scores: Tensor): Tensor {
  return softmax(scores, -1);
}

/**
 * The values of each head weighted by its pattern: pattern f32 [heads, rows, prefixKeys + keys], v [keys, kvHeads *
 * headDim], prefix v [prefixKeys, kvHeads * headDim] -> f32 [rows, heads * headDim]. Where the pattern is 0, v is not
 * looked at: rows of a cache that nothing was written to yet may hold anything.
 *
 * @throws ShapeError when shapes do not fit.
 * @throws DTypeError for integers.
 */
export function attentionMix(
  pattern: Tensor,
  { v, prefix }: Pick<KeysAndValues, "v"> & { prefix?: Pick<KeysAndValues, "v"> },
  { headDim }: { headDim: number },
): Tensor {
  const inputs = [pattern, v, ...(prefix ? [prefix.v] : [])];
  assertFloats("attentionMix", inputs);
  const values = inputs.slice(1);
  const fits =
    pattern.rank === 3 &&
    values.every((t) => t.rank === 2 && t.dim(1) === v.dim(1)) &&
    v.dim(1) > 0 &&
    v.dim(1) % headDim === 0 &&
    pattern.dim(0) % (v.dim(1) / headDim) === 0 &&
    pattern.dim(2) === values.reduce((sum, t) => sum + t.dim(0), 0);
  if (!fits) {
    throw new ShapeError(
      `attentionMix: expected pattern [heads, rows, keys], v [keys, kvHeads * ${headDim}] with kvHeads dividing heads ` +
        `(prefix keys counted in), found ${inputs.map((t) => showShape(t.shape)).join(", ")}`,
    );
  }
  return apply(attentionMixOperation, inputs, { headDim });
}

const SIZE = 64;

/** Inputs are those of attention, with k in place of v. */
export const attentionScoresOperation: Operation<AttentionAttributes> = {
  name: "attentionScores",
  arithmetic: (inputs, attributes) => pairArithmetic(inputs, attributes, 2),
  run(inputs, options, device) {
    const { headDim, softcap = 0 } = options;
    const q = inputs[0]!;
    const passes = attentionSources(inputs, options);
    const columns = passes.reduce((sum, pass) => sum + pass.k.dim(0), 0);
    const rows = q.dim(0) * (q.dim(1) / headDim); // of all heads
    const out = device.empty([q.dim(1) / headDim, q.dim(0), columns], "f32", "attentionScores");
    let first = 0;
    for (const pass of passes) {
      const count = rows * pass.k.dim(0);
      scoresKernel.launch({
        tensors: {
          q: pass.q,
          k: pass.k,
          segments: pass.segments,
          bias: pass.bias?.table,
          shifts: pass.bias?.shifts,
          out,
        },
        params: { ...attentionParams(pass, 1), count, columns, first, head_dim: headDim },
        constants: { softcap },
        workgroups: Math.ceil(count / SIZE),
      });
      first += pass.k.dim(0);
    }
    return out;
  },
};

/** Fills the columns of one source of keys, from column `first` on. */
const scoresKernel = defineKernel({
  name: "attentionScores",
  bindings: { q: "read", k: "read", segments: "read", bias: "read?", shifts: "read?", out: "write" },
  params: { ...ATTENTION_PARAMS, count: "u32", columns: "u32", first: "u32", head_dim: "u32" },
  code: ({ constants, has }) => `
${attentionHelpers((constants as { softcap: number }).softcap, has("bias"))}
@compute @workgroup_size(${SIZE})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) local: u32) {
  let i = flat_group(group, groups) * ${SIZE}u + local;
  if (i >= params.count) { return; }
  let key = i % params.keys;
  let row = i / params.keys % params.rows;
  let head = i / params.keys / params.rows;
  let place = i / params.keys * params.columns + params.first + key;
  let mine = segment(row);
  if (key < mine.x || key >= mine.y) {
    var minus_infinity = 0xff800000u; // not allowed as a constant
    out_set_word(place, minus_infinity);
    return;
  }
  let q_base = row * params.q_row + head * params.head_dim;
  let k_base = key * params.k_row + head / (params.heads / params.kv_heads) * params.head_dim;
  var product = 0.0;
  for (var d = 0u; d < params.head_dim; d++) { product += q_at(q_base + d) * k_at(k_base + d); }
  out_set(place, score(product * params.scale, row, head, key));
}`,
});

/** Inputs are the pattern, v and, with a prefix, its v. */
export const attentionMixOperation: Operation<{ headDim: number }> = {
  name: "attentionMix",
  arithmetic: ([pattern], { headDim }) => 2 * headDim * pattern!.size,
  run(inputs, { headDim }, device) {
    const [pattern, v, prefixV] = inputs.map((t) => contiguous(t)) as [Tensor, Tensor, Tensor | undefined];
    const [heads, rows, columns] = pattern.shape as [number, number, number];
    const out = device.empty([rows, heads * headDim], "f32", "attentionMix");
    const kvHeads = v.dim(1) / headDim;
    mixKernel.launch({
      tensors: { pattern, v, prefix_v: prefixV, out },
      params: {
        count: out.size,
        rows,
        columns,
        heads,
        heads_per_kv: heads / kvHeads,
        head_dim: headDim,
        v_row: v.dim(1),
        prefix_rows: prefixV?.dim(0) ?? 0,
      },
      constants: {},
      workgroups: Math.ceil(out.size / SIZE),
    });
    return out;
  },
};

const mixKernel = defineKernel({
  name: "attentionMix",
  bindings: { pattern: "read", v: "read", prefix_v: "read?", out: "write" },
  params: {
    count: "u32",
    rows: "u32",
    columns: "u32",
    heads: "u32",
    heads_per_kv: "u32",
    head_dim: "u32",
    v_row: "u32",
    prefix_rows: "u32",
  },
  code: ({ has }) => {
    const walk = (v: string, from: string, to: string) => `
  for (var column = ${from}; column < ${to}; column++) {
    let weight = pattern_at(pattern_base + column);
    // By the bits, for a comparison with NaN may come out either way.
    if ((bitcast<u32>(weight) & 0x7fffffffu) != 0u) { sum += weight * ${v}_at(v_base + (column - ${from}) * params.v_row); }
  }`;
    return `
@compute @workgroup_size(${SIZE})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) local: u32) {
  let i = flat_group(group, groups) * ${SIZE}u + local;
  if (i >= params.count) { return; }
  let dimension = i % params.head_dim;
  let head = i / params.head_dim % params.heads;
  let row = i / params.head_dim / params.heads;
  let pattern_base = (head * params.rows + row) * params.columns;
  let v_base = head / params.heads_per_kv * params.head_dim + dimension;
  var sum = 0.0;
  ${has("prefix_v") ? walk("prefix_v", "0u", "params.prefix_rows") : ""}
  ${walk("v", "params.prefix_rows", "params.columns")}
  out_set(i, sum);
}`;
  },
});
