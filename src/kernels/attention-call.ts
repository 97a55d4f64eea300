import { DTypeError, ShapeError } from "../tensor/errors.ts";
import { showShape } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { ParameterType } from "../tensor/wgsl.ts";
import { contiguous } from "./copy.ts";
import { assertFloats } from "./matmul.ts";

/** Rows of keys and of values, each [keys, kvHeads * headDim]. */
export interface KeysAndValues {
  readonly k: Tensor;
  readonly v: Tensor;
}

/** What attention reads, checked and with neighbouring elements side by side in each row. */
export interface AttentionCall {
  readonly q: Tensor;
  readonly k: Tensor;
  readonly v: Tensor;
  readonly segments: Tensor;
  readonly prefix: KeysAndValues | undefined;
  readonly headDim: number;
  readonly scale: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly rows: number;
  /** 4 where everything can be read by groups of four elements, else 1. */
  readonly lanes: 1 | 4;
}

/** @throws ShapeError or DTypeError when q, k, v, segments and prefix do not go together. */
export function checkAttention(
  operation: string,
  { q, k, v, segments, prefix }: Pick<AttentionCall, "q" | "k" | "v" | "segments" | "prefix">,
  headDim: number,
): void {
  const floats = prefix ? [q, k, v, prefix.k, prefix.v] : [q, k, v];
  assertFloats(operation, floats);
  if (segments.dtype !== "u32") {
    throw new DTypeError(`${operation}: expected u32 segments, found ${segments.dtype}`);
  }
  const matrices = floats.every((t) => t.rank === 2 && t.dim(1) > 0 && t.dim(1) % headDim === 0);
  const sameKeys =
    matrices &&
    floats.slice(1).every((t) => t.dim(1) === k.dim(1)) &&
    k.dim(0) === v.dim(0) &&
    prefix?.k.dim(0) === prefix?.v.dim(0);
  const fits =
    sameKeys &&
    (q.dim(1) / headDim) % (k.dim(1) / headDim) === 0 &&
    segments.rank === 2 &&
    segments.dim(0) === q.dim(0) &&
    segments.dim(1) === 4;
  if (!fits) {
    const found = [...floats, segments].map((t) => showShape(t.shape));
    throw new ShapeError(
      `${operation}: expected q [rows, heads * ${headDim}], k and v [keys, kvHeads * ${headDim}] with kvHeads dividing ` +
        `heads, ${prefix ? `prefix k and v [prefixKeys, kvHeads * ${headDim}], ` : ""}segments [rows, 4], ` +
        `found ${found.join(", ")}`,
    );
  }
}

/** Unpacks an operation's inputs: q, k, v, segments and, with a prefix, its k and v. */
export function attentionCall(inputs: readonly Tensor[], headDim: number, scale: number): AttentionCall {
  const [q, k, v] = inputs.slice(0, 3).map(besideEachOther) as [Tensor, Tensor, Tensor];
  const [prefixK, prefixV] = inputs.slice(4).map(besideEachOther);
  const prefix = prefixK && prefixV ? { k: prefixK, v: prefixV } : undefined;
  const byFour = [q, k, v, ...(prefix ? [prefix.k, prefix.v] : [])].every(
    (t) => t.offset % 4 === 0 && t.strides[0]! % 4 === 0,
  );
  return {
    q,
    k,
    v,
    segments: contiguous(inputs[3]!),
    prefix,
    headDim,
    scale,
    heads: q.dim(1) / headDim,
    kvHeads: k.dim(1) / headDim,
    rows: q.dim(0),
    lanes: headDim % 4 === 0 && byFour ? 4 : 1,
  };
}

/** Rows may lie apart (a slice of fused projections), but the elements of a row may not. */
function besideEachOther(t: Tensor): Tensor {
  return t.strides[1] === 1 ? t : contiguous(t);
}

export const ATTENTION_PARAMS = {
  rows: "u32",
  heads: "u32",
  kv_heads: "u32",
  own_rows: "u32",
  prefix_rows: "u32",
  // Distances between rows, in units of the accessors.
  q_row: "u32",
  k_row: "u32",
  v_row: "u32",
  prefix_k_row: "u32",
  prefix_v_row: "u32",
  scale: "f32",
} as const satisfies Record<string, ParameterType>;

export function attentionParams({ q, k, v, prefix, rows, heads, kvHeads, scale, lanes }: AttentionCall) {
  const row = (t: Tensor | undefined) => (t?.strides[0] ?? 0) / lanes;
  return {
    rows,
    heads,
    kv_heads: kvHeads,
    own_rows: k.dim(0),
    prefix_rows: prefix?.k.dim(0) ?? 0,
    q_row: row(q),
    k_row: row(k),
    v_row: row(v),
    prefix_k_row: row(prefix?.k),
    prefix_v_row: row(prefix?.v),
    scale,
  };
}

/** Numbers of elements between the starts of neighbouring heads, and of vectors of four that hold a head. */
export function headSize(headDim: number, lanes: 1 | 4): { step: number; vectors: number } {
  return { step: headDim / lanes, vectors: Math.ceil(headDim / 4) };
}

/** WGSL `<name>_vec(base, d)`: elements 4 d to 4 d + 3 of the head that starts at `base`, 0 past its end. */
export function loadVector(name: string, headDim: number, lanes: 1 | 4): string {
  if (lanes === 4) return `fn ${name}_vec(base: u32, d: u32) -> vec4f { return ${name}_at4(base + d); }`;
  return `
fn ${name}_vec(base: u32, d: u32) -> vec4f {
  var v = vec4f();
  for (var c = 0u; c < min(4u, ${headDim}u - 4u * d); c++) { v[c] = ${name}_at(base + 4u * d + c); }
  return v;
}`;
}

/** WGSL `<name>_set_vec(base, d, v)`, the counterpart of {@link loadVector}. */
export function storeVector(name: string, headDim: number, lanes: 1 | 4): string {
  if (lanes === 4) return `fn ${name}_set_vec(base: u32, d: u32, v: vec4f) { ${name}_set4(base + d, v); }`;
  return `
fn ${name}_set_vec(base: u32, d: u32, v: vec4f) {
  for (var c = 0u; c < min(4u, ${headDim}u - 4u * d); c++) { ${name}_set(base + 4u * d + c, v[c]); }
}`;
}

/** A number below every score, to start a maximum from. */
export const LOWEST = "-3.4028234e38";

export const ATTENTION_HELPERS = `
// exp of a number <= 0; 0 below the normal range, where drivers differ.
fn decay(x: f32) -> f32 { return select(exp(max(x, -87.0)), 0.0, x < -87.0); }
// NaN or +infinity: compilers may assume that neither exists, so look at the bits.
fn spoils(x: f32) -> bool {
  let bits = bitcast<u32>(x);
  return bits == 0x7f800000u || (bits & 0x7fffffffu) > 0x7f800000u;
}
fn nan() -> f32 { var bits = 0x7fc00000u; return bitcast<f32>(bits); }

// Prefix rows x to y - 1 and own rows z to w - 1 are what a query row attends to.
fn segment(row: u32) -> vec4u {
  let s = vec4u(segments_at(4u * row), segments_at(4u * row + 1u), segments_at(4u * row + 2u), segments_at(4u * row + 3u));
  return min(s, vec4u(params.prefix_rows, params.prefix_rows, params.own_rows, params.own_rows));
}

// What any of several query rows attends to, with the gaps filled.
fn reach_of(first_row: u32, end_row: u32) -> vec4u {
  var reach = vec4u(0xffffffffu, 0u, 0xffffffffu, 0u);
  for (var row = first_row; row < end_row; row++) {
    let s = segment(row);
    let wider = vec4u(min(reach.x, s.x), max(reach.y, s.y), min(reach.z, s.z), max(reach.w, s.w));
    reach = select(reach, wider, vec4<bool>(s.x < s.y, s.x < s.y, s.z < s.w, s.z < s.w));
  }
  return select(vec4u(), reach, vec4<bool>(reach.x < reach.y, reach.x < reach.y, reach.z < reach.w, reach.z < reach.w));
}
`;
