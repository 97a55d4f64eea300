import type { PackedFormat } from "./packed-format.ts";

/** Elements of a group of `int8` and `int4` unless told otherwise. */
export const DEFAULT_GROUP = 64;

/** What the codes of NF4 stand for: quantiles of the normal distribution (Dettmers et al. 2023, arXiv 2305.14314). */
export const NF4_TABLE: readonly number[] = [
  ...[-1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635],
  ...[-0.18477343022823334, -0.09105003625154495, 0, 0.07958029955625534, 0.16093020141124725],
  ...[0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941],
  ...[0.7229568362236023, 1],
];

/** What the codes of bitsandbytes' FP4 stand for: a sign, two bits of exponent, one of fraction, all over 12. */
const FP4_MAGNITUDES = [0, 0.0625, 8, 12, 4, 6, 2, 3].map((value) => Math.fround(value / 12));
export const FP4_TABLE: readonly number[] = [...FP4_MAGNITUDES, ...FP4_MAGNITUDES.map((value) => 0 - value)];

/** Integers of 8 bits, symmetric (-127 to 127 times a scale) or with zero points (0 to 255). */
export function int8({ group = DEFAULT_GROUP, zeros = false } = {}): PackedFormat {
  return zeros
    ? { kind: "int8", codes: "u8", group, scales: "zero" }
    : { kind: "int8", codes: "i8", group, scales: "f16" };
}

/** Integers of 4 bits, symmetric (-7 to 7 times a scale) or with zero points (0 to 15). */
export function int4({ group = DEFAULT_GROUP, zeros = false } = {}): PackedFormat {
  return zeros
    ? { kind: "int4", codes: "u4", group, scales: "zero" }
    : { kind: "int4", codes: "u4", bias: 8, group, scales: "f16" };
}

/** bitsandbytes' 4 bits: groups run on from row to row. `nested` is double quantisation. */
export function fourBit(kind: "nf4" | "fp4", { group = 64, nested = true } = {}): PackedFormat {
  const table = kind === "nf4" ? NF4_TABLE : FP4_TABLE;
  return { kind, codes: "u4", table, group, scales: nested ? "nested" : "f32" };
}

/** LLM.int8 of bitsandbytes (Dettmers et al. 2022, arXiv 2208.07339): a scale for each row of so many elements. */
export function int8Rows(width: number): PackedFormat {
  return { kind: "int8", codes: "i8", group: width, scales: "f32" };
}

/** ggml's, by the names of its types in lower case. */
export const GGML_FORMATS = {
  q8_0: { kind: "q8_0", codes: "i8", group: 32, scales: "f16" },
  q4_0: { kind: "q4_0", codes: "u4", bias: 8, group: 32, scales: "f16" },
  q4_1: { kind: "q4_1", codes: "u4", group: 32, scales: "affine" },
  q4_k: { kind: "q4_k", codes: "u4", group: 32, scales: "superAffine" },
  q6_k: { kind: "q6_k", codes: "u6", bias: 32, group: 16, scales: "super" },
} as const satisfies Record<string, PackedFormat>;
