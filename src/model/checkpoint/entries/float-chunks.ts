import { CheckpointError } from "../../../errors.ts";
import { DTYPE_BYTES, type DType, decode, encode, isFloat } from "../../../tensor/dtype.ts";
import type { TensorEntry } from "./tensor-entry.ts";

/** A tensor of floats as another dtype, chunk by chunk. Throws CheckpointError for integers, and see {@link floatBytes}. */
export async function* asFloats(
  entry: TensorEntry,
  dtype: DType,
  where: string,
): AsyncGenerator<Uint8Array<ArrayBuffer>, void, undefined> {
  if (!isFloat(entry.dtype)) throw new CheckpointError(`${where}: ${entry.name} holds ${entry.dtype}`);
  for await (const chunk of entry.stream()) {
    if (entry.dtype === dtype) yield chunk;
    else {
      const values = decode(chunk, entry.dtype, chunk.length / DTYPE_BYTES[entry.dtype]);
      yield floatBytes(values, dtype, `${where}: ${entry.name}`);
    }
  }
}

/** Numbers as bytes of a float dtype, to the nearest, ties to even. Throws CheckpointError for one beyond its range. */
export function floatBytes(values: ArrayLike<number>, dtype: DType, where: string): Uint8Array<ArrayBuffer> {
  const bytes = encode(values, dtype).subarray(0, values.length * DTYPE_BYTES[dtype]);
  if (dtype !== "f32") {
    const infinity = dtype === "f16" ? 0x7c00 : 0x7f80;
    const i = new Uint16Array(bytes.buffer, 0, values.length).findIndex(
      (bits) => (bits & infinity) === infinity,
    );
    if (i >= 0) throw new CheckpointError(`${where} has ${values[i]}, not a finite ${dtype}`);
  }
  return bytes;
}
