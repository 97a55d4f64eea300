import { f16Bits, f16Value } from "../../../tensor/dtype.ts";
import type { PackedFormat } from "../../../tensor/packed/packed-format.ts";

/** A group of numbers: those of `values` from `start` up to but not including `end`. */
export interface Group {
  values: Float32Array;
  start: number;
  end: number;
}

/** Finds the codes of a group, put in `codes` from `at` on, and the 16-bit halves of its scale (and offset). */
export type GroupCoder = (group: Group, codes: Uint8Array, at: number, scales: Uint16Array) => void;

/** How a format finds codes; undefined for one whose groups do not stand alone, or that is only read. */
export function groupCoder({ kind, scales, codes }: PackedFormat): GroupCoder | undefined {
  const most = codes === "u4" ? 15 : 255;
  switch (kind) {
    case "int8":
      if (scales === "f32") return undefined;
      return scales === "zero" ? withZero(most) : symmetric(127, 0);
    case "int4":
      return scales === "zero" ? withZero(most) : symmetric(7, 8);
    case "q8_0":
      return codeQ8_0;
    case "q4_0":
      return codeQ4_0;
    case "q4_1":
      return codeQ4_1;
    default:
      return undefined;
  }
}

// A checkpoint has billions of numbers: each is looked at in plain loops, and nothing is made for one.

/** Whole numbers from -most to most times a scale, rounded to even. */
function symmetric(most: number, bias: number): GroupCoder {
  return (group, codes, at, scales) => {
    const { values, start, end } = group;
    scales[0] = f16Bits(largest(group) / most);
    const scale = f16Value(scales[0]!);
    const to = at - start;
    if (scale === 0) codes.fill(bias, at, to + end);
    else
      for (let i = start; i < end; i++) codes[to + i] = clamp(even(values[i]! / scale), -most, most) + bias;
  };
}

/** Whole numbers from 0 to most, of which one stands for 0. */
function withZero(most: number): GroupCoder {
  return (group, codes, at, scales) => {
    const { values, start, end } = group;
    const low = Math.min(0, smallest(group));
    const high = Math.max(0, greatest(group));
    scales[0] = f16Bits((high - low) / most);
    const scale = f16Value(scales[0]!);
    const zero = scale === 0 ? 0 : clamp(even(-low / scale), 0, most);
    scales[1] = f16Bits(zero);
    const to = at - start;
    if (scale === 0) codes.fill(0, at, to + end);
    else for (let i = start; i < end; i++) codes[to + i] = clamp(even(values[i]! / scale) + zero, 0, most);
  };
}

const f = Math.fround;

// The three below are those of ggml (quantize_row_q8_0_ref and its like), each step in f32: the same bits.

const codeQ8_0: GroupCoder = (group, codes, at, scales) => {
  const { values, start, end } = group;
  const d = f(largest(group) / 127);
  const inverse = d === 0 ? 0 : f(1 / d);
  scales[0] = f16Bits(d);
  const to = at - start;
  for (let i = start; i < end; i++) codes[to + i] = awayFromZero(f(values[i]! * inverse));
};

const codeQ4_0: GroupCoder = (group, codes, at, scales) => {
  const { values, start, end } = group;
  let most = 0;
  for (let i = start; i < end; i++) if (Math.abs(values[i]!) > Math.abs(most)) most = values[i]!;
  const d = f(most / -8);
  const inverse = d === 0 ? 0 : f(1 / d);
  scales[0] = f16Bits(d);
  const to = at - start;
  for (let i = start; i < end; i++) {
    codes[to + i] = Math.min(15, Math.trunc(f(f(values[i]! * inverse) + 8.5)));
  }
};

const codeQ4_1: GroupCoder = (group, codes, at, scales) => {
  const { values, start, end } = group;
  const low = smallest(group);
  const d = f(f(greatest(group) - low) / 15);
  const inverse = d === 0 ? 0 : f(1 / d);
  scales[0] = f16Bits(d);
  scales[1] = f16Bits(low);
  const to = at - start;
  for (let i = start; i < end; i++) {
    codes[to + i] = Math.min(15, Math.trunc(f(f(f(values[i]! - low) * inverse) + 0.5)));
  }
};

function largest({ values, start, end }: Group): number {
  let most = 0;
  for (let i = start; i < end; i++) {
    const size = Math.abs(values[i]!);
    if (size > most) most = size;
  }
  return most;
}

function smallest({ values, start, end }: Group): number {
  let least = Number.POSITIVE_INFINITY;
  for (let i = start; i < end; i++) if (values[i]! < least) least = values[i]!;
  return least;
}

function greatest({ values, start, end }: Group): number {
  let most = Number.NEGATIVE_INFINITY;
  for (let i = start; i < end; i++) if (values[i]! > most) most = values[i]!;
  return most;
}

function clamp(value: number, low: number, high: number): number {
  return value < low ? low : value > high ? high : value;
}

/** Where doubles are whole numbers. */
const WHOLE = 1.5 * 2 ** 52;

/** To the nearest whole number, ties to even: as doubles are rounded. */
function even(value: number): number {
  return value + WHOLE - WHOLE;
}

function awayFromZero(value: number): number {
  return value < 0 ? -Math.floor(0.5 - value) : Math.floor(value + 0.5);
}
