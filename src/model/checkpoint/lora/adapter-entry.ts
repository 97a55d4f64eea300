import { CheckpointError } from "../../../errors.ts";
import { DTYPE_BYTES, type DType, decode, encode } from "../../../tensor/dtype.ts";
import { DEFAULT_CHUNK_BYTES, renamed, type TensorEntry } from "../entries/tensor-entry.ts";

/** The exponent's bits of the float dtypes: all of them are set in infinities and NaN, and in nothing else. */
const EXPONENTS: Partial<Record<DType, number>> = { f32: 0x7f800000, f16: 0x7c00, bf16: 0x7f80 };

/** The same tensor, read with a CheckpointError that begins with `what` where it holds an infinity or NaN. */
export function finite(entry: TensorEntry, what: string): TensorEntry {
  const exponent = EXPONENTS[entry.dtype];
  if (exponent === undefined) return entry;
  async function* stream(chunkBytes?: number): AsyncGenerator<Uint8Array<ArrayBuffer>, void, undefined> {
    for await (const chunk of entry.stream(chunkBytes)) {
      const { buffer, byteOffset, byteLength } = chunk;
      const bits =
        entry.dtype === "f32"
          ? new Uint32Array(buffer, byteOffset, byteLength / 4)
          : new Uint16Array(buffer, byteOffset, byteLength / 2);
      for (let i = 0; i < bits.length; i++) {
        if ((bits[i]! & exponent!) === exponent) {
          throw new CheckpointError(`${what} holds infinities or NaN, or numbers beyond ${entry.dtype}`);
        }
      }
      yield chunk;
    }
  }
  return { ...renamed(entry, entry.name), stream };
}

/**
 * The tensor in place of a weight of `dtype`: as it is, or in f32 where the two differ, so that neither it nor what is merged
 * into it is rounded to the adapter's dtype.
 */
export function inPlaceOf(dtype: DType, entry: TensorEntry): TensorEntry {
  if (entry.dtype === dtype || entry.dtype === "f32") return entry;
  const elementBytes = DTYPE_BYTES[entry.dtype];
  async function* stream(
    chunkBytes = DEFAULT_CHUNK_BYTES,
  ): AsyncGenerator<Uint8Array<ArrayBuffer>, void, undefined> {
    for await (const chunk of entry.stream((chunkBytes / 4) * elementBytes)) {
      yield encode(decode(chunk, entry.dtype, chunk.length / elementBytes), "f32");
    }
  }
  const byteLength = (entry.byteLength / elementBytes) * 4;
  return { ...renamed(entry, entry.name), dtype: "f32", byteLength, stream };
}
