import { DTypeError } from "../errors.ts";

/**
 * Element types that live on the GPU. f16 and bf16 are storage types: kernels widen them to f32 as they load and
 * accumulate in f32, so no adapter feature is needed to use them.
 */
export type DType = "f32" | "f16" | "bf16" | "i32" | "u32";

/** What `read()` gives: f16 and bf16 come back widened to f32, which is exact. */
export type HostArray<D extends DType = DType> = D extends "i32"
  ? Int32Array<ArrayBuffer>
  : D extends "u32"
    ? Uint32Array<ArrayBuffer>
    : Float32Array<ArrayBuffer>;

export const DTYPE_BYTES: Readonly<Record<DType, number>> = { f32: 4, f16: 2, bf16: 2, i32: 4, u32: 4 };

export function isFloat(dtype: DType): boolean {
  return dtype === "f32" || dtype === "f16" || dtype === "bf16";
}

/** @throws DTypeError unless all are f32, f16 or bf16. */
export function assertFloats(operation: string, tensors: readonly { readonly dtype: DType }[]): void {
  for (const { dtype } of tensors) {
    if (!isFloat(dtype)) throw new DTypeError(`${operation}: expected f32, f16 or bf16, found ${dtype}`);
  }
}

const f32Scratch = new Float32Array(1);
const u32Scratch = new Uint32Array(f32Scratch.buffer);

/** The IEEE half nearest to `value` (ties to even), as its 16 bits. Overflow gives infinity, NaN stays NaN. */
export function f16Bits(value: number): number {
  f32Scratch[0] = value;
  const bits = u32Scratch[0]!;
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude >= 0x7f800000) return sign | (magnitude > 0x7f800000 ? 0x7e00 : 0x7c00);
  if (magnitude >= 0x477ff000) return sign | 0x7c00; // rounds past 65504
  if (magnitude < 0x38800000) {
    // Subnormal half: a multiple of 2^-24. Adding 0.5 moves that multiple into the float's low bits, rounded to even.
    f32Scratch[0] = Math.abs(value) + 0.5;
    return sign | (u32Scratch[0]! - 0x3f000000);
  }
  const rounded = magnitude + 0xfff + ((magnitude >>> 13) & 1);
  return sign | ((rounded - 0x38000000) >>> 13);
}

/** Of all halves by their bits, made when first needed: checkpoints have billions of them. */
let f16Values: Float32Array | undefined;

/** The value of an IEEE half given as its 16 bits. */
export function f16Value(bits: number): number {
  const exponent = (bits >>> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  const sign = bits & 0x8000 ? -1 : 1;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** The bfloat16 nearest to `value` (ties to even), as its 16 bits. */
export function bf16Bits(value: number): number {
  f32Scratch[0] = value;
  const bits = u32Scratch[0]!;
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >>> 16) | 0x40; // keep NaN a NaN
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff;
}

/** The value of a bfloat16 given as its 16 bits. */
export function bf16Value(bits: number): number {
  u32Scratch[0] = bits << 16;
  return f32Scratch[0]!;
}

/** Encodes numbers as the raw bytes of `dtype`, padded with zeros to a multiple of four bytes. */
export function encode(values: ArrayLike<number>, dtype: DType): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(Math.ceil((values.length * DTYPE_BYTES[dtype]) / 4) * 4);
  if (dtype === "f32") new Float32Array(bytes.buffer, 0, values.length).set(values);
  else if (dtype === "i32") new Int32Array(bytes.buffer, 0, values.length).set(values);
  else if (dtype === "u32") new Uint32Array(bytes.buffer, 0, values.length).set(values);
  else {
    const bitsOf = dtype === "f16" ? f16Bits : bf16Bits;
    const out = new Uint16Array(bytes.buffer, 0, values.length);
    for (let i = 0; i < values.length; i++) out[i] = bitsOf(values[i]!);
  }
  return bytes;
}

/** The inverse of {@link encode}: `count` elements from the start of `bytes`, which must be four-byte aligned. */
export function decode<D extends DType>(
  bytes: Uint8Array<ArrayBuffer>,
  dtype: D,
  count: number,
): HostArray<D> {
  const { buffer, byteOffset } = bytes;
  let out: HostArray;
  if (dtype === "f32") out = new Float32Array(buffer, byteOffset, count).slice();
  else if (dtype === "i32") out = new Int32Array(buffer, byteOffset, count).slice();
  else if (dtype === "u32") out = new Uint32Array(buffer, byteOffset, count).slice();
  else {
    const halves = new Uint16Array(buffer, byteOffset, count);
    out = new Float32Array(count);
    if (dtype === "f16") {
      f16Values ??= Float32Array.from({ length: 2 ** 16 }, (_, bits) => f16Value(bits));
      for (let i = 0; i < count; i++) out[i] = f16Values[halves[i]!]!;
    } else {
      const bits = new Uint32Array(out.buffer);
      for (let i = 0; i < count; i++) bits[i] = halves[i]! << 16;
    }
  }
  return out as HostArray<D>;
}
