import { DTypeError, ShapeError } from "../../errors.ts";
import { assertFloats } from "../../tensor/dtype.ts";
import { defineKernel, type Variant } from "../../tensor/kernel.ts";
import { apply, type Operation } from "../../tensor/operation.ts";
import { showShape } from "../../tensor/shape.ts";
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

export interface RopeOptions {
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
  return apply(ropeOperation, [x, positions, table], inverse ? { headDim, inverse } : { headDim });
}

const SIZE = 64;

export const ropeOperation: Operation<RopeOptions> = {
  name: "rope",
  run(inputs, { headDim, inverse = false }, device) {
    const [x, positions, table] = inputs.map((t) => contiguous(t)) as [Tensor, Tensor, Tensor];
    const out = device.empty(x.shape, "f32", "rope");
    const rotaryDim = table.dim(1);
    const byFour = rotaryDim % 8 === 0 && headDim % 4 === 0 && x.offset % 4 === 0 && table.offset % 4 === 0;
    const lanes = byFour ? 4 : 1;
    // One invocation rotates both members of a pair, or copies what passes through.
    const unitsPerHead = (rotaryDim / 2 + headDim - rotaryDim) / lanes;
    const units = (x.size / headDim) * unitsPerHead;
    (byFour ? vectorKernel : scalarKernel).launch({
      tensors: { x, positions, table, out },
      params: {
        units,
        units_per_head: unitsPerHead,
        heads: x.dim(1) / headDim,
        head_dim: headDim / lanes,
        half: rotaryDim / 2 / lanes,
        table_rows: table.dim(0),
      },
      constants: { inverse },
      workgroups: Math.ceil(units / SIZE),
    });
    return out;
  },
};

const scalarKernel = ropeKernel(1);
const vectorKernel = ropeKernel(4);

function ropeKernel(lanes: 1 | 4) {
  const [n, type] = lanes === 4 ? ["4", "vec4f"] : ["", "f32"];
  return defineKernel({
    name: `rope by ${lanes}`,
    partly: { table: "x" },
    bindings: {
      x: lanes === 4 ? "read4" : "read",
      positions: "read",
      table: lanes === 4 ? "read4" : "read",
      out: lanes === 4 ? "write4" : "write",
    },
    params: {
      units: "u32",
      units_per_head: "u32",
      heads: "u32",
      head_dim: "u32",
      half: "u32",
      table_rows: "u32",
    },
    code: ({ constants }: Variant<string, { inverse: boolean }>) => `
alias F = ${type};
alias U = ${lanes === 4 ? "vec4u" : "u32"};
${SPECIAL_VALUES}
@compute @workgroup_size(${SIZE})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) local: u32) {
  let i = flat_group(group, groups) * ${SIZE}u + local;
  if (i >= params.units) { return; }
  let unit = i % params.units_per_head;
  let head = i / params.units_per_head; // of all rows
  let start = head * params.head_dim;
  if (unit >= params.half) {
    let at = start + params.half + unit;
    out_set${n}(at, x_at${n}(at));
    return;
  }
  let a = x_at${n}(start + unit);
  let b = x_at${n}(start + params.half + unit);
  let position = positions_at(head / params.heads);
  if (position >= params.table_rows) {
    out_set${n}(start + unit, nan());
    out_set${n}(start + params.half + unit, nan());
    return;
  }
  let angles = position * 2u * params.half;
  let cosine = table_at${n}(angles + unit);
  let sine = ${constants.inverse ? "-" : ""}table_at${n}(angles + params.half + unit);
  out_set${n}(start + unit, a * cosine - b * sine);
  out_set${n}(start + params.half + unit, b * cosine + a * sine);
}`,
  });
}
