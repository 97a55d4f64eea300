import { f16Bits, f16Value } from "../../../tensor/dtype.ts";
import type { PackedFormat } from "../../../tensor/packed/packed-format.ts";

/** Finds the codes of a group of numbers, and the 16-bit halves of its scale (and offset). */
export type GroupCoder = (values: Float32Array, codes: Uint8Array, scales: Uint16Array) => void;

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

/** Whole numbers from -most to most times a scale, rounded to even. */
function symmetric(most: number, bias: number): GroupCoder {
  return (values, codes, scales) => {
    scales[0] = f16Bits(largest(values) / most);
    const scale = f16Value(scales[0]!);
    for (let i = 0; i < values.length; i++) {
      codes[i] = (scale === 0 ? 0 : clamp(even(values[i]! / scale), -most, most)) + bias;
    }
  };
}

/** Whole numbers from 0 to most, of which one stands for 0. */
function withZero(most: number): GroupCoder {
  return (values, codes, scales) => {
    const low = Math.min(0, smallest(values));
    const high = Math.max(0, greatest(values));
    scales[0] = f16Bits((high - low) / most);
    const scale = f16Value(scales[0]!);
    const zero = scale === 0 ? 0 : clamp(even(-low / scale), 0, most);
    scales[1] = f16Bits(zero);
    for (let i = 0; i < values.length; i++) {
      codes[i] = scale === 0 ? 0 : clamp(even(values[i]! / scale) + zero, 0, most);
    }
  };
}

const f = Math.fround;

// The three below are those of ggml (quantize_row_q8_0_ref and its like), each step in f32: the same bits.

function codeQ8_0(values: Float32Array, codes: Uint8Array, scales: Uint16Array): void {
  const d = f(largest(values) / 127);
  const inverse = d === 0 ? 0 : f(1 / d);
  scales[0] = f16Bits(d);
  for (let i = 0; i < values.length; i++) codes[i] = awayFromZero(f(values[i]! * inverse));
}

function codeQ4_0(values: Float32Array, codes: Uint8Array, scales: Uint16Array): void {
  let most = 0;
  for (const value of values) if (Math.abs(value) > Math.abs(most)) most = value;
  const d = f(most / -8);
  const inverse = d === 0 ? 0 : f(1 / d);
  scales[0] = f16Bits(d);
  for (let i = 0; i < values.length; i++) {
    codes[i] = Math.min(15, Math.trunc(f(f(values[i]! * inverse) + 8.5)));
  }
}

function codeQ4_1(values: Float32Array, codes: Uint8Array, scales: Uint16Array): void {
  const low = smallest(values);
  const d = f(f(greatest(values) - low) / 15);
  const inverse = d === 0 ? 0 : f(1 / d);
  scales[0] = f16Bits(d);
  scales[1] = f16Bits(low);
  for (let i = 0; i < values.length; i++) {
    codes[i] = Math.min(15, Math.trunc(f(f(f(values[i]! - low) * inverse) + 0.5)));
  }
}

function largest(values: Float32Array): number {
  let most = 0;
  for (const value of values) most = Math.max(most, Math.abs(value));
  return most;
}

function smallest(values: Float32Array): number {
  let least = Number.POSITIVE_INFINITY;
  for (const value of values) least = Math.min(least, value);
  return least;
}

function greatest(values: Float32Array): number {
  let most = Number.NEGATIVE_INFINITY;
  for (const value of values) most = Math.max(most, value);
  return most;
}

function clamp(value: number, low: number, high: number): number {
  return Math.min(high, Math.max(low, value));
}

/** To the nearest whole number, ties to even. */
function even(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  if (rest !== 0.5) return rest < 0.5 ? floor : floor + 1;
  return floor % 2 === 0 ? floor : floor + 1;
}

function awayFromZero(value: number): number {
  return Math.sign(value) * Math.floor(Math.abs(value) + 0.5);
}
