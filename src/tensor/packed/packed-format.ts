import { DTYPE_BYTES, type DType } from "../dtype.ts";

/** The ways in which a matrix can be kept in fewer bits. */
export const PACKED_KINDS = [
  ...(["int8", "int4", "nf4", "fp4"] as const),
  ...(["q8_0", "q4_0", "q4_1", "q4_k", "q6_k"] as const),
] as const;

export type PackedKind = (typeof PACKED_KINDS)[number];

/**
 * How the elements of a packed matrix are coded: `value = (code - bias) * scale + offset`, or `table[code] * scale`, with a
 * scale for each group of consecutive elements of the flattened matrix. A matrix may have a few elements without meaning
 * at the end of each row, so that groups begin with rows.
 */
export interface PackedFormat {
  readonly kind: PackedKind;
  /** Signed and unsigned bytes; four bits; six bits as four and two. */
  readonly codes: "i8" | "u8" | "u4" | "u6";
  /** Subtracted from a code. */
  readonly bias?: number;
  /** What the 16 codes of four bits stand for. */
  readonly table?: readonly number[];
  /** Elements that share a scale: a multiple of four. */
  readonly group: number;
  readonly scales: ScaleScheme;
}

/**
 * - `f32`, `f16`: a number a group.
 * - `affine`: scale and offset a group; `zero`: scale and zero point (the code of 0). Pairs of f16.
 * - `nested`: a byte a group, which stands for a number by a table of 256, times one a {@link NESTED_BLOCK} groups, plus one for all.
 * - `super`: a signed byte a group, times one f16 a {@link SUPER_BLOCK} elements.
 * - `superAffine`: two bytes a group, for scale and minimum, each times one f16 a {@link SUPER_BLOCK} elements.
 */
export type ScaleScheme = "f32" | "f16" | "affine" | "zero" | "nested" | "super" | "superAffine";

/** Scales of a group that share one of their own, in double quantisation (Dettmers et al. 2023, arXiv 2305.14314). */
export const NESTED_BLOCK = 256;
/** Where nested scales start in their part: after the sum that all get, and the table. */
export const NESTED_START = 257;
/** Elements of a superblock of ggml's K-quants. */
export const SUPER_BLOCK = 256;

/** A buffer of a packed matrix. Bytes and smaller codes lie in u32 words, the first in the lowest bits. */
export interface PackedPart {
  readonly name: PartName;
  readonly dtype: DType;
  /** Elements of `dtype`. */
  readonly length: number;
}

export type PartName = "codes" | "high" | "scales" | "super" | "nested";

/** The parts of a matrix of so many elements, those without meaning among them. */
export function partsOf({ codes, group, scales }: PackedFormat, elements: number): PackedPart[] {
  const groups = Math.ceil(elements / group);
  const words = (name: PartName, count: number, perWord: number): PackedPart => ({
    name,
    dtype: "u32",
    length: Math.ceil(count / perWord),
  });
  const parts = [words("codes", elements, codes === "u4" || codes === "u6" ? 8 : 4)];
  if (codes === "u6") parts.push(words("high", elements, 16));
  const superBlocks = Math.ceil(elements / SUPER_BLOCK);
  switch (scales) {
    case "f32":
    case "f16":
      parts.push({ name: "scales", dtype: scales, length: groups });
      break;
    case "affine":
    case "zero":
      parts.push(words("scales", groups, 1));
      break;
    case "nested":
      parts.push(words("scales", groups, 4), {
        name: "nested",
        dtype: "f32",
        length: NESTED_START + Math.ceil(groups / NESTED_BLOCK),
      });
      break;
    case "super":
      parts.push(words("scales", groups, 4), { name: "super", dtype: "f16", length: superBlocks });
      break;
    case "superAffine":
      parts.push(words("scales", groups, 2), words("super", superBlocks, 1));
  }
  return parts;
}

/** Whether something is added behind the scale: of formats whose codes may stand for numbers of one sign. */
export function hasOffset({ scales }: PackedFormat): boolean {
  return scales === "affine" || scales === "zero" || scales === "superAffine";
}

/** Codes in 16 bytes; of 6 bits, which lie in two buffers, in the one with the lower four. */
export function codesInWide({ codes }: PackedFormat): number {
  return codes === "i8" || codes === "u8" ? 16 : 32;
}

/** Bytes of the parts together. */
export function packedBytes(format: PackedFormat, elements: number): number {
  return partsOf(format, elements).reduce((sum, { dtype, length }) => sum + length * DTYPE_BYTES[dtype], 0);
}

/** Bytes that an element takes with its share of the scales. */
export function bytesPerElement(format: PackedFormat): number {
  const elements = format.group * 2 ** 16;
  return packedBytes(format, elements) / elements;
}

/** Tells formats apart whose kernels differ. */
export function formatKey({ kind, codes, bias = 0, group, scales }: PackedFormat): string {
  return `${kind}/${codes}-${bias}/${group}/${scales}`;
}
