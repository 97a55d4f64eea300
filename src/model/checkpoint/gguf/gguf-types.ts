import { type DType, f16Value } from "../../../tensor/dtype.ts";
import type { PartName } from "../../../tensor/packed/packed-format.ts";
import { packedValues } from "../../../tensor/packed/packed-values.ts";
import { GGML_BLOCKS, type GgmlBlocks, ggmlPieces } from "../packing/ggml-blocks.ts";

type Bytes = Uint8Array<ArrayBuffer>;

/** How GGML lays out the elements of one type. */
export interface GgmlType {
  readonly name: string;
  /** Elements that are stored together; a row is a whole number of blocks. */
  readonly blockElements: number;
  readonly blockBytes: number;
  /** What the elements are read as. Absent for types that can be listed, but not read. */
  readonly dtype?: DType;
  /** Turns whole blocks into f32; absent where the stored bytes are those of `dtype` already. */
  readonly dequantise?: (raw: Bytes) => Float32Array<ArrayBuffer>;
  /** How blocks are kept as they are on the device, where they can be. */
  readonly blocks?: GgmlBlocks;
}

/** By the number that GGUF files use for them (ggml.h, enum ggml_type). */
export const GGML_TYPES: ReadonlyMap<number, GgmlType> = new Map<number, GgmlType>([
  [0, { name: "F32", blockElements: 1, blockBytes: 4, dtype: "f32" }],
  [1, { name: "F16", blockElements: 1, blockBytes: 2, dtype: "f16" }],
  [
    2,
    {
      name: "Q4_0",
      blockElements: 32,
      blockBytes: 18,
      dtype: "f32",
      dequantise: dequantiseQ4_0,
      blocks: GGML_BLOCKS.q4_0,
    },
  ],
  [
    3,
    {
      name: "Q4_1",
      blockElements: 32,
      blockBytes: 20,
      dtype: "f32",
      dequantise: dequantiseQ4_1,
      blocks: GGML_BLOCKS.q4_1,
    },
  ],
  [6, { name: "Q5_0", blockElements: 32, blockBytes: 22 }],
  [7, { name: "Q5_1", blockElements: 32, blockBytes: 24 }],
  [
    8,
    {
      name: "Q8_0",
      blockElements: 32,
      blockBytes: 34,
      dtype: "f32",
      dequantise: dequantiseQ8_0,
      blocks: GGML_BLOCKS.q8_0,
    },
  ],
  [9, { name: "Q8_1", blockElements: 32, blockBytes: 36 }],
  [10, { name: "Q2_K", blockElements: 256, blockBytes: 84 }],
  [11, { name: "Q3_K", blockElements: 256, blockBytes: 110 }],
  [12, kQuant("Q4_K", GGML_BLOCKS.q4_k)],
  [13, { name: "Q5_K", blockElements: 256, blockBytes: 176 }],
  [14, kQuant("Q6_K", GGML_BLOCKS.q6_k)],
  [15, { name: "Q8_K", blockElements: 256, blockBytes: 292 }],
  [24, { name: "I8", blockElements: 1, blockBytes: 1 }],
  [25, { name: "I16", blockElements: 1, blockBytes: 2 }],
  [26, { name: "I32", blockElements: 1, blockBytes: 4, dtype: "i32" }],
  [27, { name: "I64", blockElements: 1, blockBytes: 8 }],
  [28, { name: "F64", blockElements: 1, blockBytes: 8 }],
  [30, { name: "BF16", blockElements: 1, blockBytes: 2, dtype: "bf16" }],
]);

// Products of an f16 with a small integer are exact in f32 already, and here in a double, so every value below is rounded
// to f32 once: the same as in ggml's C code, with or without fused multiply-add.

/** A block: scale d (f16), 16 bytes with elements 0–15 as low and 16–31 as high nibbles. Value: (q − 8) d. */
function dequantiseQ4_0(raw: Bytes): Float32Array<ArrayBuffer> {
  const out = new Float32Array((raw.length / 18) * 32);
  for (let from = 0, to = 0; from < raw.length; from += 18, to += 32) {
    const d = f16At(raw, from);
    for (let i = 0; i < 16; i++) {
      const pair = raw[from + 2 + i]!;
      out[to + i] = ((pair & 15) - 8) * d;
      out[to + 16 + i] = ((pair >> 4) - 8) * d;
    }
  }
  return out;
}

/** A block: scale d and minimum m (f16), then nibbles as in Q4_0. Value: q d + m. */
function dequantiseQ4_1(raw: Bytes): Float32Array<ArrayBuffer> {
  const out = new Float32Array((raw.length / 20) * 32);
  for (let from = 0, to = 0; from < raw.length; from += 20, to += 32) {
    const d = f16At(raw, from);
    const m = f16At(raw, from + 2);
    for (let i = 0; i < 16; i++) {
      const pair = raw[from + 4 + i]!;
      out[to + i] = (pair & 15) * d + m;
      out[to + 16 + i] = (pair >> 4) * d + m;
    }
  }
  return out;
}

/** A block: scale d (f16), 32 signed bytes. Value: q d. */
function dequantiseQ8_0(raw: Bytes): Float32Array<ArrayBuffer> {
  const out = new Float32Array((raw.length / 34) * 32);
  const signed = new Int8Array(raw.buffer, raw.byteOffset, raw.length);
  for (let from = 0, to = 0; from < raw.length; from += 34, to += 32) {
    const d = f16At(raw, from);
    for (let i = 0; i < 32; i++) out[to + i] = signed[from + 2 + i]! * d;
  }
  return out;
}

/** A type that is unpacked by way of the form that it has on the device. Each value is rounded to f32 once, as in ggml. */
function kQuant(name: string, blocks: GgmlBlocks): GgmlType {
  const dequantise = (raw: Bytes) => {
    const parts = new Map<PartName, Bytes>(ggmlPieces(blocks, raw).map(({ part, bytes }) => [part, bytes]));
    return packedValues(blocks.format, parts, 0, (raw.length / blocks.bytes) * blocks.elements);
  };
  const { elements: blockElements, bytes: blockBytes } = blocks;
  return { name, blockElements, blockBytes, dtype: "f32", dequantise, blocks };
}

function f16At(raw: Bytes, at: number): number {
  return f16Value(raw[at]! | (raw[at + 1]! << 8));
}
