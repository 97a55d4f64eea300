import { DTypeError, ShapeError } from "../../errors.ts";
import { assertFloats } from "../../tensor/dtype.ts";
import type { Arithmetic } from "../../tensor/operation.ts";
import { showShape } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { ParameterType } from "../../tensor/wgsl.ts";
import { contiguous } from "../movement/copy.ts";

/** Rows of keys and of values, each [keys, kvHeads * headDim]. */
export interface KeysAndValues {
  /** [keys, kvHeads * headDim] */
  readonly k: Tensor;
  /** Like k. */
  readonly v: Tensor;
}

/** What is added to the scores by how far each key lies from its query (T5's relative positions). */
export interface AttentionBias {
  /** [2 * far + 1, heads], for distances -far to far; farther ones count as these. */
  readonly table: Tensor;
  /**
   * i32 [rows, 2]: what makes the row of a prefix key, or of an own key, its distance (the key's position less the
   * query's) by being added to it.
   */
  readonly shifts: Tensor;
}

/** One source of keys and values, the prefix or the rows' own, and the queries of all rows to it. */
export interface AttentionSource extends KeysAndValues {
  readonly q: Tensor;
  readonly segments: Tensor;
  /** Which column of `segments` starts the ranges: 0 for the prefix, 2 for own keys. */
  readonly column: 0 | 2;
  readonly headDim: number;
  readonly scale: number;
  /** Bound of the scores, see {@link AttentionOptions.softcap}; 0 for none. */
  readonly softcap: number;
  readonly bias: AttentionBias | undefined;
}

/** Heads and scale of {@link attention}. */
export interface AttentionOptions {
  readonly headDim: number;
  /** Factor of the scores, usually headDim ** -0.5. */
  readonly scale: number;
  /** Scores become softcap * tanh(score / softcap), before the mask (Gemma 2); without it they stay. */
  readonly softcap?: number;
}

/** Queries, keys and values, and which keys each query row attends to. */
export interface AttentionInputs extends KeysAndValues {
  /** [rows, heads * headDim] */
  readonly q: Tensor;
  /** u32 [rows, 4]: prefixStart, prefixEnd, ownStart, ownEnd. */
  readonly segments: Tensor;
  /** Keys and values that come before the others, [prefixKeys, kvHeads * headDim]. */
  readonly prefix?: KeysAndValues;
  /** Added to the scores after the soft cap. */
  readonly bias?: AttentionBias;
}

/** Where attention to one source puts its results; the keys that a row attends to are split into `slices`. */
export interface AttentionOutput {
  readonly slices: number;
  /** f32 [slices, rows, heads * headDim]: weighted values, divided by the sum of weights only if there are no stats. */
  readonly out: Tensor;
  /** f32 [slices, rows * heads, 2]: the maximum score, and the sum of weights relative to it. */
  readonly stats: Tensor | undefined;
}

/** @throws ShapeError or DTypeError when q, k, v, segments and prefix do not go together. */
export function checkAttention(
  operation: string,
  { q, k, v, segments, prefix, bias }: AttentionInputs,
  { headDim, softcap }: AttentionOptions,
): void {
  if (softcap !== undefined && !(softcap > 0 && Number.isFinite(softcap))) {
    throw new ShapeError(`${operation}: expected a soft cap above 0, found ${softcap}`);
  }
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
  if (bias) checkBias(operation, bias, q.dim(0), q.dim(1) / headDim);
}

function checkBias(operation: string, { table, shifts }: AttentionBias, rows: number, heads: number): void {
  assertFloats(operation, [table]);
  if (shifts.dtype !== "i32")
    throw new DTypeError(`${operation}: expected i32 shifts, found ${shifts.dtype}`);
  const fits = table.rank === 2 && table.dim(0) % 2 === 1 && table.dim(1) === heads;
  if (!fits || showShape(shifts.shape) !== showShape([rows, 2])) {
    throw new ShapeError(
      `${operation}: expected a bias of table [2 * far + 1, ${heads}] and shifts [${rows}, 2], found ` +
        `${showShape(table.shape)} and ${showShape(shifts.shape)}`,
    );
  }
}

/** What an operation needs to know beside its options to tell its inputs apart. */
export interface AttentionAttributes extends AttentionOptions {
  readonly biased: boolean;
}

/** The inputs of an operation, to be taken apart by {@link attentionSources}. */
export function packAttention({ q, k, v, segments, prefix, bias }: AttentionInputs): Tensor[] {
  return [
    q,
    k,
    v,
    segments,
    ...(prefix ? [prefix.k, prefix.v] : []),
    ...(bias ? [bias.table, bias.shifts] : []),
  ];
}

/** Of so many floating-point operations for each query, key and dimension of a head. */
export function pairArithmetic(
  inputs: readonly Tensor[],
  { biased }: AttentionAttributes,
  perDimension: number,
): Arithmetic {
  const [q, k, , segments, prefixK] = biased ? inputs.slice(0, -2) : inputs;
  return { each: perDimension * q!.dim(1), segments: segments!, keys: [prefixK?.dim(0) ?? 0, k!.dim(0)] };
}

/** The sources of keys among an operation's inputs. */
export function attentionSources(
  inputs: readonly Tensor[],
  { headDim, scale, softcap = 0, biased }: AttentionAttributes,
): AttentionSource[] {
  const keys = biased ? inputs.slice(0, -2) : inputs;
  const [q, k, v, , prefixK, prefixV] = keys.map(besideEachOther) as [Tensor, Tensor, Tensor, ...Tensor[]];
  const bias = biased ? { table: contiguous(inputs.at(-2)!), shifts: contiguous(inputs.at(-1)!) } : undefined;
  const shared = { q, segments: contiguous(inputs[3]!), headDim, scale, softcap, bias };
  const own: AttentionSource = { ...shared, k, v, column: 2 };
  return prefixK && prefixV ? [{ ...shared, k: prefixK, v: prefixV, column: 0 }, own] : [own];
}

/** Rows may lie apart (a slice of fused projections), but the elements of a row may not. */
function besideEachOther(t: Tensor): Tensor {
  return t.strides.at(-1) === 1 ? t : contiguous(t);
}

/** 4 where everything can be read by groups of four elements, else 1. */
export function lanesOf({ q, k, v, headDim }: AttentionSource): 1 | 4 {
  const aligned = [q, k, v].every((t) => t.offset % 4 === 0 && t.strides[0]! % 4 === 0);
  return headDim % 4 === 0 && aligned ? 4 : 1;
}

export const ATTENTION_PARAMS = {
  rows: "u32",
  heads: "u32",
  kv_heads: "u32",
  keys: "u32",
  column: "u32",
  // Distances between rows, in units of the accessors.
  q_row: "u32",
  k_row: "u32",
  v_row: "u32",
  scale: "f32",
  // The largest distance in the table of biases.
  far: "i32",
} as const satisfies Record<string, ParameterType>;

export function attentionParams({ q, k, v, column, headDim, scale, bias }: AttentionSource, lanes: 1 | 4) {
  return {
    rows: q.dim(0),
    heads: q.dim(1) / headDim,
    kv_heads: k.dim(1) / headDim,
    keys: k.dim(0),
    column,
    q_row: q.strides[0]! / lanes,
    k_row: k.strides[0]! / lanes,
    v_row: v.strides[0]! / lanes,
    scale,
    far: bias ? (bias.table.dim(0) - 1) / 2 : 0,
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

/** WGSL `capped(x)`: a scaled score within the soft cap. NaN stays; an infinite score is at the cap. */
function scoreCap(softcap: number): string {
  if (softcap === 0) return "fn capped(x: f32) -> f32 { return x; }";
  return `
fn capped(x: f32) -> f32 {
  let z = abs(x) / ${softcap};
  let e = exp(-2.0 * min(z, 40.0));
  // Near zero the quotient would lose its digits.
  let s = z * z;
  let near = z * (1.0 + s * (-1.0 / 3.0 + s * (2.0 / 15.0 + s * (-17.0 / 315.0 + s * (62.0 / 2835.0)))));
  let bounded = sign(x) * ${softcap} * select((1.0 - e) / (1.0 + e), near, z < 0.25);
  return select(bounded, x, (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u);
}`;
}

/** WGSL `score(x, row, head, key)`: what a scaled product becomes. */
function scoreOf(biased: boolean): string {
  if (!biased) return "fn score(x: f32, row: u32, head: u32, key: u32) -> f32 { return capped(x); }";
  return `
fn score(x: f32, row: u32, head: u32, key: u32) -> f32 {
  let distance = clamp(i32(key) + shifts_at(2u * row + params.column / 2u), -params.far, params.far);
  return capped(x) + bias_at(u32(distance + params.far) * params.heads + head);
}`;
}

/** WGSL functions that attention kernels share. */
export function attentionHelpers(softcap: number, biased: boolean): string {
  return `${scoreCap(softcap)}
${scoreOf(biased)}
// exp of a number <= 0; 0 below the normal range, where drivers differ.
fn decay(x: f32) -> f32 { return select(exp(max(x, -87.0)), 0.0, x < -87.0); }
// NaN or +infinity: compilers may assume that neither exists, so look at the bits.
fn spoils(x: f32) -> bool {
  let bits = bitcast<u32>(x);
  return bits == 0x7f800000u || (bits & 0x7fffffffu) > 0x7f800000u;
}
fn nan() -> f32 { var bits = 0x7fc00000u; return bitcast<f32>(bits); }

// A query row attends to keys x to y - 1.
fn segment(row: u32) -> vec2u {
  let at = 4u * row + params.column;
  return min(vec2u(segments_at(at), segments_at(at + 1u)), vec2u(params.keys));
}

// What any of several query rows attends to, with the gaps filled.
fn reach_of(first_row: u32, end_row: u32) -> vec2u {
  var reach = vec2u(0xffffffffu, 0u);
  for (var row = first_row; row < end_row; row++) {
    let s = segment(row);
    if (s.x < s.y) { reach = vec2u(min(reach.x, s.x), max(reach.y, s.y)); }
  }
  return select(vec2u(), reach, reach.x < reach.y);
}

// The first key behind j at which what these rows attend to begins anew: with the keys of another sequence.
fn next_sequence(first_row: u32, end_row: u32, j: u32) -> u32 {
  var end = 0u;
  for (var row = first_row; row < end_row; row++) {
    let s = segment(row);
    if (s.x >= s.y) { continue; }
    if (s.x > j && s.x >= end) { return s.x; }
    end = max(end, s.y);
  }
  return 0xffffffffu;
}
`;
}
