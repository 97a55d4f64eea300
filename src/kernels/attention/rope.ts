import { DTypeError, ShapeError } from "../../errors.ts";
import { assertFloats } from "../../tensor/dtype.ts";
import { defineKernel, type Variant } from "../../tensor/kernel.ts";
import { apply, type Operation } from "../../tensor/operation.ts";
import { contiguousStrides, showShape } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { SPECIAL_VALUES } from "../elementwise/float-bits.ts";
import { contiguous } from "../movement/copy.ts";

/** How a model stretches its rotary frequencies to contexts longer than it was first trained on. */
export type RopeScaling =
  /** All frequencies divided by `factor` (Chen et al. 2023, arXiv 2306.15595). */
  | { readonly type: "linear"; readonly factor: number }
  /**
   * Llama 3.1: frequencies with less than `lowFreqFactor` turns in the original context are divided by `factor`, those
   * with more than `highFreqFactor` are kept, and in between the two are mixed.
   */
  | {
      readonly type: "llama3";
      readonly factor: number;
      readonly lowFreqFactor: number;
      readonly highFreqFactor: number;
      /** Tokens. */
      readonly originalContext: number;
    }
  /**
   * LongRoPE (Ding et al. 2024, arXiv 2402.13753): each frequency is divided by a factor of its own, and cosines and sines are
   * multiplied by `magnitude`.
   */
  | { readonly type: "longrope"; readonly factors: readonly number[]; readonly magnitude: number };

/** Frequencies and length of a {@link ropeTable}. */
export interface RopeTableOptions {
  /** Dimensions of a head that are rotated; even. Usually the head's whole width. */
  rotaryDim: number;
  /** Base of the frequencies, usually 10000 or more. */
  theta: number;
  scaling?: RopeScaling;
  /** Number of positions, from 0. */
  length: number;
}

/**
 * Cosines and sines of rotary position embedding (Su et al. 2021, arXiv 2104.09864), f32 [length, rotaryDim]: by
 * position, first rotaryDim / 2 cosines and then the sines. Angles are products of f32 numbers rounded to f32, as
 * Hugging Face transformers has them; it matters, for at large positions an angle in f64 is another angle.
 *
 * @throws ShapeError when rotaryDim is odd.
 */
export function ropeTable({ rotaryDim, theta, scaling, length }: RopeTableOptions): {
  cosSin: Float32Array<ArrayBuffer>;
} {
  const frequencies = ropeFrequencies({ rotaryDim, theta, scaling });
  const half = frequencies.length;
  const magnitude = ropeMagnitude(scaling);
  const cosSin = new Float32Array(length * rotaryDim);
  for (let position = 0; position < length; position++) {
    for (let i = 0; i < half; i++) {
      const angle = Math.fround(position * frequencies[i]!);
      cosSin[position * rotaryDim + i] = magnitude * Math.cos(angle);
      cosSin[position * rotaryDim + half + i] = magnitude * Math.sin(angle);
    }
  }
  return { cosSin };
}

/**
 * Radians that a position turns each pair of dimensions by, f32 [rotaryDim / 2], rounded as in transformers.
 *
 * @throws ShapeError when rotaryDim is odd, or longrope has another number of factors.
 */
export function ropeFrequencies({
  rotaryDim,
  theta,
  scaling,
}: Omit<RopeTableOptions, "length">): Float32Array<ArrayBuffer> {
  if (!Number.isInteger(rotaryDim) || rotaryDim <= 0 || rotaryDim % 2 !== 0) {
    throw new ShapeError(`ropeTable: expected an even number of rotary dimensions, found ${rotaryDim}`);
  }
  if (scaling?.type === "longrope" && scaling.factors.length !== rotaryDim / 2) {
    throw new ShapeError(
      `ropeTable: expected ${rotaryDim / 2} factors for ${rotaryDim} rotary dimensions, found ${scaling.factors.length}`,
    );
  }
  return Float32Array.from({ length: rotaryDim / 2 }, (_, i) => {
    const wavelength = Math.fround(theta ** Math.fround((2 * i) / rotaryDim));
    if (scaling?.type === "longrope") return 1 / Math.fround(Math.fround(scaling.factors[i]!) * wavelength);
    return scale(Math.fround(1 / wavelength), scaling);
  });
}

/** What a scaling multiplies cosines and sines by. */
export function ropeMagnitude(scaling: RopeScaling | undefined): number {
  return scaling?.type === "longrope" ? scaling.magnitude : 1;
}

function scale(frequency: number, scaling: Exclude<RopeScaling, { type: "longrope" }> | undefined): number {
  switch (scaling?.type) {
    case undefined:
      return frequency;
    case "linear":
      return frequency / scaling.factor;
    case "llama3": {
      const { factor, lowFreqFactor, highFreqFactor, originalContext } = scaling;
      const turns = (originalContext * frequency) / (2 * Math.PI);
      if (turns < lowFreqFactor) return frequency / factor;
      if (turns > highFreqFactor) return frequency;
      const kept = (turns - lowFreqFactor) / (highFreqFactor - lowFreqFactor);
      return frequency * ((1 - kept) / factor + kept);
    }
  }
}

/** How {@link rope} rotates. */
export interface RopeOptions {
  /** Features of a head. */
  headDim: number;
  /** Rotate back, by the negative angles. Default false. */
  inverse?: boolean;
}

/**
 * Rotates each head of each row by the angles of the row's position: dimension i pairs with i + rotaryDim / 2
 * ("rotate half"), and dimensions from rotaryDim on pass through.
 *
 * x: [rows, heads * headDim], f32, f16 or bf16. positions: u32 [rows]. table: f32 [positions, rotaryDim], see
 * {@link ropeTable}. Result: f32, like x. A row whose position is beyond the table becomes NaN where it is rotated. NaN
 * and infinity follow IEEE arithmetic.
 *
 * @throws ShapeError when shapes do not fit.
 * @throws DTypeError for other dtypes.
 */
export function rope(
  x: Tensor,
  positions: Tensor,
  table: Tensor,
  { headDim, inverse = false }: RopeOptions,
): Tensor {
  check(x, positions, table, headDim);
  return apply(ropeOperation, [x, positions, table], inverse ? { headDim, inverse } : { headDim });
}

function check(x: Tensor, positions: Tensor, table: Tensor, headDim: number): void {
  assertFloats("rope", [x]);
  if (positions.dtype !== "u32" || table.dtype !== "f32") {
    throw new DTypeError(
      `rope: expected u32 positions and an f32 table, found ${positions.dtype} and ${table.dtype}`,
    );
  }
  const fits =
    x.rank === 2 &&
    positions.rank === 1 &&
    table.rank === 2 &&
    x.dim(1) % headDim === 0 &&
    positions.dim(0) === x.dim(0) &&
    table.dim(1) % 2 === 0 &&
    table.dim(1) <= headDim;
  if (!fits) {
    throw new ShapeError(
      `rope: expected x [rows, heads * ${headDim}], positions [rows] and table [positions, rotaryDim <= ${headDim}], ` +
        `found ${[x, positions, table].map((t) => showShape(t.shape)).join(", ")}`,
    );
  }
}

/**
 * Rotates queries and keys of the same rows at once: {@link rope} of each of the two, whose numbers of heads may differ, with
 * the same numbers.
 *
 * @throws ShapeError when shapes do not fit.
 * @throws DTypeError for other dtypes.
 */
export function ropePair(
  [x, y]: readonly [Tensor, Tensor],
  positions: Tensor,
  table: Tensor,
  { headDim }: Pick<RopeOptions, "headDim">,
): [Tensor, Tensor] {
  for (const each of [x, y]) check(each, positions, table, headDim);
  if (x.dtype !== y.dtype) {
    throw new DTypeError(`ropePair: expected one dtype, found ${x.dtype} and ${y.dtype}`);
  }
  const whole = apply(ropePairOperation, [x, positions, table, y], { headDim });
  const parts = [
    whole.view(x.shape, contiguousStrides(x.shape), whole.offset),
    whole.view(y.shape, contiguousStrides(y.shape), whole.offset + x.size),
  ] as const;
  whole.dispose();
  return [...parts];
}

const SIZE = 64;

export const ropeOperation: Operation<RopeOptions> = {
  name: "rope",
  run(inputs, { headDim, inverse = false }, device) {
    const [x, positions, table] = inputs.map((t) => contiguous(t)) as [Tensor, Tensor, Tensor];
    const out = device.empty(x.shape, "f32", "rope");
    launch({ x, y: undefined, positions, table, out }, headDim, inverse);
    return out;
  },
};

/** Inputs: x, positions, table, y. Output: what becomes of x, and then of y, f32 [size of x + size of y]. */
export const ropePairOperation: Operation<{ headDim: number }> = {
  name: "rope (pair)",
  run(inputs, { headDim }, device) {
    const [x, positions, table, y] = inputs.map((t) => contiguous(t)) as [Tensor, Tensor, Tensor, Tensor];
    const out = device.empty([x.size + y.size], "f32", "rope (pair)");
    launch({ x, y, positions, table, out }, headDim, false);
    return out;
  },
};

function launch(
  tensors: { x: Tensor; y: Tensor | undefined; positions: Tensor; table: Tensor; out: Tensor },
  headDim: number,
  inverse: boolean,
): void {
  const { x, y, table } = tensors;
  const rotaryDim = table.dim(1);
  const aligned = [x, table, ...(y ? [y] : [])].every(({ offset }) => offset % 4 === 0);
  const byFour = rotaryDim % 8 === 0 && headDim % 4 === 0 && aligned;
  const lanes = byFour ? 4 : 1;
  // One invocation rotates both members of a pair, or copies what passes through.
  const unitsPerHead = (rotaryDim / 2 + headDim - rotaryDim) / lanes;
  const unitsOf = (t: Tensor | undefined) => ((t?.size ?? 0) / headDim) * unitsPerHead;
  (byFour ? vectorKernel : scalarKernel).launch({
    tensors,
    params: {
      units: unitsOf(x) + unitsOf(y),
      units_of_x: unitsOf(x),
      units_per_head: unitsPerHead,
      heads: x.dim(1) / headDim,
      heads_of_y: (y?.dim(1) ?? 0) / headDim,
      head_dim: headDim / lanes,
      half: rotaryDim / 2 / lanes,
      table_rows: table.dim(0),
    },
    constants: { inverse },
    workgroups: Math.ceil((unitsOf(x) + unitsOf(y)) / SIZE),
  });
}

const scalarKernel = ropeKernel(1);
const vectorKernel = ropeKernel(4);

function ropeKernel(lanes: 1 | 4) {
  const [n, type] = lanes === 4 ? ["4", "vec4f"] : ["", "f32"];
  return defineKernel({
    name: `rope by ${lanes}`,
    partly: { table: "out" },
    bindings: {
      x: lanes === 4 ? "read4" : "read",
      y: lanes === 4 ? "read4?" : "read?",
      positions: "read",
      table: lanes === 4 ? "read4" : "read",
      out: lanes === 4 ? "write4" : "write",
    },
    params: {
      units: "u32",
      units_of_x: "u32",
      units_per_head: "u32",
      heads: "u32",
      heads_of_y: "u32",
      head_dim: "u32",
      half: "u32",
      table_rows: "u32",
    },
    code: ({ constants, has }: Variant<string, { inverse: boolean }>) => `
alias F = ${type};
alias U = ${lanes === 4 ? "vec4u" : "u32"};
${SPECIAL_VALUES}
fn value_at(is_y: bool, i: u32) -> F {
  ${has("y") ? `if (is_y) { return y_at${n}(i); }` : ""}
  return x_at${n}(i);
}
@compute @workgroup_size(${SIZE})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) local: u32) {
  let i = flat_group(group, groups) * ${SIZE}u + local;
  if (i >= params.units) { return; }
  let is_y = i >= params.units_of_x;
  let own = select(i, i - params.units_of_x, is_y);
  let unit = own % params.units_per_head;
  let head = own / params.units_per_head; // of all rows
  let row = head / select(params.heads, params.heads_of_y, is_y);
  let start = head * params.head_dim;
  // What becomes of y lies behind what becomes of x.
  let out_start = i / params.units_per_head * params.head_dim;
  if (unit >= params.half) {
    let at = params.half + unit;
    out_set${n}(out_start + at, value_at(is_y, start + at));
    return;
  }
  let a = value_at(is_y, start + unit);
  let b = value_at(is_y, start + params.half + unit);
  let position = positions_at(row);
  if (position >= params.table_rows) {
    out_set${n}(out_start + unit, nan());
    out_set${n}(out_start + params.half + unit, nan());
    return;
  }
  let angles = position * 2u * params.half;
  let cosine = table_at${n}(angles + unit);
  let sine = ${constants.inverse ? "-" : ""}table_at${n}(angles + params.half + unit);
  out_set${n}(out_start + unit, a * cosine - b * sine);
  out_set${n}(out_start + params.half + unit, b * cosine + a * sine);
}`,
  });
}
