import { CheckpointError } from "../../../errors.ts";
import { type DType, f16Bits, f16Value } from "../../../tensor/dtype.ts";

type Bytes = Uint8Array<ArrayBuffer>;

/** How one dtype of the safetensors format reaches the GPU. */
export interface StoredDType {
  /** Bytes per element in the file. */
  readonly bytes: number;
  /** The dtype it has on the GPU. */
  readonly dtype: DType;
  /** Turns stored bytes into those of `dtype`; absent where they are the same. `where` names the tensor in errors. */
  readonly convert?: (raw: Bytes, where: string) => Bytes;
}

/**
 * Every dtype that can be read. Five go to the GPU as stored. The rest are widened, all exactly, but for F64, which is
 * rounded to the nearest f32, and I64 and U64, whose values have to fit 32 bits (CheckpointError otherwise).
 * BOOL becomes 0 or 1; F8_E4M3 is the finite form (no infinity, one NaN); F8_E8M0 are powers of two, for scales.
 */
export const STORED_DTYPES: ReadonlyMap<string, StoredDType> = new Map<string, StoredDType>([
  ["F32", { bytes: 4, dtype: "f32" }],
  ["F16", { bytes: 2, dtype: "f16" }],
  ["BF16", { bytes: 2, dtype: "bf16" }],
  ["I32", { bytes: 4, dtype: "i32" }],
  ["U32", { bytes: 4, dtype: "u32" }],
  ["F64", { bytes: 8, dtype: "f32", convert: widen(Float64Array, Float32Array) }],
  ["I64", { bytes: 8, dtype: "i32", convert: (raw, where) => narrow(raw, where, (low) => low >> 31) }],
  ["U64", { bytes: 8, dtype: "u32", convert: (raw, where) => narrow(raw, where, () => 0) }],
  ["I16", { bytes: 2, dtype: "i32", convert: widen(Int16Array, Int32Array) }],
  ["U16", { bytes: 2, dtype: "u32", convert: widen(Uint16Array, Uint32Array) }],
  ["I8", { bytes: 1, dtype: "i32", convert: widen(Int8Array, Int32Array) }],
  ["U8", { bytes: 1, dtype: "u32", convert: widen(Uint8Array, Uint32Array) }],
  ["BOOL", { bytes: 1, dtype: "u32", convert: widen(Uint8Array, Uint32Array, (b) => (b ? 1 : 0)) }],
  ["F8_E4M3", { bytes: 1, dtype: "f16", convert: widen(Uint8Array, Uint16Array, (b) => E4M3_AS_F16[b]!) }],
  // An E5M2 number is the upper byte of the same number in f16.
  ["F8_E5M2", { bytes: 1, dtype: "f16", convert: widen(Uint8Array, Uint16Array, (b) => b << 8) }],
  [
    "F8_E8M0",
    {
      bytes: 1,
      dtype: "f32",
      convert: widen(Uint8Array, Float32Array, (b) => (b === 255 ? NaN : 2 ** (b - 127))),
    },
  ],
]);

/** Bits per element of the format's dtypes that are not read; tensors of them can be listed and left alone. */
const LISTED_ONLY: ReadonlyMap<string, number> = new Map([
  ["F4", 4],
  ["F6_E2M3", 6],
  ["F6_E3M2", 6],
  ["F8_E4M3FNUZ", 8],
  ["F8_E5M2FNUZ", 8],
  ["C64", 64],
]);

/** Bits per element; undefined for a word that is no dtype of the format. */
export function storedBits(stored: string): number | undefined {
  const type = STORED_DTYPES.get(stored);
  return type ? 8 * type.bytes : LISTED_ONLY.get(stored);
}

const E4M3_AS_F16 = Uint16Array.from({ length: 256 }, (_, bits) => {
  const exponent = (bits >> 3) & 15;
  const fraction = bits & 7;
  const sign = bits & 0x80 ? -1 : 1;
  if (exponent === 15 && fraction === 7) return f16Bits(Number.NaN);
  return f16Bits(sign * (exponent === 0 ? fraction / 8 : 1 + fraction / 8) * 2 ** ((exponent || 1) - 7));
});

/** What the bytes of 8-bit floats with a fraction stand for. */
export const F8_VALUES: ReadonlyMap<string, Float32Array> = new Map([
  ["F8_E4M3", Float32Array.from(E4M3_AS_F16, f16Value)],
  ["F8_E5M2", Float32Array.from({ length: 256 }, (_, byte) => f16Value(byte << 8))],
]);

interface StoredArray {
  readonly BYTES_PER_ELEMENT: number;
  new (buffer: ArrayBuffer, byteOffset: number, length: number): ArrayLike<number>;
}

interface GpuArray {
  from(values: ArrayLike<number>, map: (value: number) => number): { readonly buffer: ArrayBuffer };
}

/** A conversion element by element. */
function widen(From: StoredArray, To: GpuArray, map = (value: number) => value): (raw: Bytes) => Bytes {
  return ({ buffer, byteOffset, length }) => {
    const values = new From(buffer, byteOffset, length / From.BYTES_PER_ELEMENT);
    return new Uint8Array(To.from(values, map).buffer);
  };
}

/** Keeps the low half of 64-bit integers whose high half is what `highOf` expects of a value that fits. */
function narrow(raw: Bytes, where: string, highOf: (low: number) => number): Bytes {
  const halves = new Int32Array(raw.buffer, raw.byteOffset, raw.length / 4);
  const out = new Int32Array(raw.length / 8);
  for (let i = 0; i < out.length; i++) {
    const low = halves[2 * i]!;
    if (halves[2 * i + 1] !== highOf(low)) {
      throw new CheckpointError(`${where}: a 64-bit integer does not fit 32 bits, which is what the GPU has`);
    }
    out[i] = low;
  }
  return new Uint8Array(out.buffer);
}
