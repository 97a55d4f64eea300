import type { PackedFormat } from "../../../tensor/packed/packed-format.ts";
import { GGML_FORMATS } from "../../../tensor/packed/packed-formats.ts";
import type { PackedPiece } from "../entries/packed-source.ts";
import { bytesOf, nibbles } from "./piece-writer.ts";

type Bytes = Uint8Array<ArrayBuffer>;
export type GgmlKind = keyof typeof GGML_FORMATS;

/** A type of ggml whose blocks can be taken apart. */
export interface GgmlBlocks {
  readonly format: PackedFormat;
  readonly elements: number;
  readonly bytes: number;
  /** Block `i` of `raw`, into the parts of all of them: bytes of codes, and 16-bit or 8-bit scales as they are stored. */
  readonly take: (raw: Bytes, from: number, out: Record<string, Bytes>, i: number) => void;
  /** Bytes of each part that a block makes. */
  readonly parts: Readonly<Record<string, number>>;
}

/** ggml's layouts (ggml-common.h); codes come out in the order of the elements, two in a byte the first in the low half. */
export const GGML_BLOCKS: Readonly<Record<GgmlKind, GgmlBlocks>> = {
  q8_0: {
    format: GGML_FORMATS.q8_0,
    elements: 32,
    bytes: 34,
    parts: { codes: 32, scales: 2 },
    take(raw, from, { codes, scales }, i) {
      scales!.set(raw.subarray(from, from + 2), 2 * i);
      codes!.set(raw.subarray(from + 2, from + 34), 32 * i);
    },
  },
  q4_0: {
    format: GGML_FORMATS.q4_0,
    elements: 32,
    bytes: 18,
    parts: { codes: 16, scales: 2 },
    take(raw, from, { codes, scales }, i) {
      scales!.set(raw.subarray(from, from + 2), 2 * i);
      codes!.set(halves(raw.subarray(from + 2, from + 18)), 16 * i);
    },
  },
  q4_1: {
    format: GGML_FORMATS.q4_1,
    elements: 32,
    bytes: 20,
    parts: { codes: 16, scales: 4 },
    take(raw, from, { codes, scales }, i) {
      scales!.set(raw.subarray(from, from + 4), 4 * i);
      codes!.set(halves(raw.subarray(from + 4, from + 20)), 16 * i);
    },
  },
  q4_k: {
    format: GGML_FORMATS.q4_k,
    elements: 256,
    bytes: 144,
    parts: { codes: 128, scales: 16, super: 4 },
    take(raw, from, { codes, scales, super: factors }, i) {
      factors!.set(raw.subarray(from, from + 4), 4 * i);
      scales!.set(sixBits(raw.subarray(from + 4, from + 16)), 16 * i);
      for (let part = 0; part < 4; part++) {
        const start = from + 16 + 32 * part;
        codes!.set(halves(raw.subarray(start, start + 32)), 128 * i + 32 * part);
      }
    },
  },
  q6_k: {
    format: GGML_FORMATS.q6_k,
    elements: 256,
    bytes: 210,
    parts: { codes: 128, high: 64, scales: 16, super: 2 },
    take(raw, from, { codes, high, scales, super: factors }, i) {
      for (let half = 0; half < 2; half++) {
        const low = raw.subarray(from + 64 * half, from + 64 * (half + 1));
        codes!.set(halves(low), 128 * i + 64 * half);
        high!.set(pairs(raw.subarray(from + 128 + 32 * half, from + 160 + 32 * half)), 64 * i + 32 * half);
      }
      scales!.set(raw.subarray(from + 192, from + 208), 16 * i);
      factors!.set(raw.subarray(from + 208, from + 210), 2 * i);
    },
  },
};

/** Whole blocks taken apart. */
export function ggmlPieces({ bytes, parts, take }: GgmlBlocks, raw: Bytes): PackedPiece[] {
  const count = raw.length / bytes;
  const out = Object.fromEntries(
    Object.entries(parts).map(([name, size]) => [name, new Uint8Array(count * size)]),
  );
  for (let i = 0; i < count; i++) take(raw, i * bytes, out, i);
  return Object.entries(out).map(([part, data]) => ({ part: part as PackedPiece["part"], bytes: data }));
}

/** Codes of which the first half lies in the low and the second in the high half of each byte. */
function halves(bytes: Bytes): Bytes {
  const codes = new Uint8Array(2 * bytes.length);
  bytes.forEach((byte, i) => {
    codes[i] = byte & 15;
    codes[bytes.length + i] = byte >> 4;
  });
  return nibbles(codes);
}

/** Four times 32 codes of two bits, the n-th of each byte being of the n-th 32, four in a byte one after the other. */
function pairs(bytes: Bytes): Bytes {
  const out = new Uint8Array(32);
  for (let i = 0; i < 128; i++) out[i >> 2]! |= ((bytes[i & 31]! >> (2 * (i >> 5))) & 3) << (2 * (i & 3));
  return out;
}

/** Eight pairs of scale and minimum, of six bits each, from the 12 bytes that K-quants have them in; a byte each. */
function sixBits(bytes: Bytes): Bytes {
  const out = new Uint8Array(16);
  for (let i = 0; i < 4; i++) {
    const [a, b, c] = [bytes[i]!, bytes[i + 4]!, bytes[i + 8]!];
    out[2 * i] = a & 63;
    out[2 * i + 1] = b & 63;
    out[8 + 2 * i] = (c & 15) | ((a >> 6) << 4);
    out[9 + 2 * i] = (c >> 4) | ((b >> 6) << 4);
  }
  return bytesOf(out);
}
