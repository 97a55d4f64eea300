import { DTYPE_BYTES, type DType } from "../../../tensor/dtype.ts";
import { packedValues } from "../../../tensor/packed/packed-values.ts";
import { sizeOf } from "../../../tensor/shape.ts";
import { floatBytes } from "../entries/float-chunks.ts";
import { collected, type PackedSource } from "../entries/packed-source.ts";
import type { TensorEntry } from "../entries/tensor-entry.ts";

/** Elements that are unpacked at a time. */
const MOST = 2 ** 20;

/** A packed matrix of a file as a tensor, which as a stream is unpacked, rounded to `dtype`. */
export function packedEntry(
  name: string,
  shape: readonly [number, number],
  source: PackedSource,
  { dtype, files }: { readonly dtype: DType; readonly files: readonly TensorEntry[] },
): TensorEntry {
  const problem = files.find((file) => file.problem)?.problem;
  return {
    name,
    shape,
    stored: source.format.kind.toUpperCase(),
    storedBytes: files.reduce((sum, { storedBytes }) => sum + storedBytes, 0),
    dtype,
    byteLength: sizeOf(shape) * DTYPE_BYTES[dtype],
    packed: source,
    ...(problem && { problem }),
    expect() {
      for (const file of files) file.expect?.();
    },
    async *stream() {
      const [rows, width] = shape;
      const { format, rowStride } = source;
      const parts = await collected(source);
      const step = Math.max(1, Math.floor(MOST / width / 2)) * 2;
      for (let row = 0; row < rows; row += step) {
        const end = Math.min(rows, row + step);
        const padded = packedValues(format, parts, row * rowStride, end * rowStride);
        const values = new Float32Array((end - row) * width);
        for (let i = 0; i < end - row; i++) {
          values.set(padded.subarray(i * rowStride, i * rowStride + width), i * width);
        }
        yield dtype === "f32" ? new Uint8Array(values.buffer) : floatBytes(values, dtype, name);
      }
    },
  };
}

/** The bytes of a tensor as they lie in the file, filled up to whole words. */
export async function rawBytes(entry: TensorEntry): Promise<Uint8Array<ArrayBuffer>> {
  const out = new Uint8Array(Math.ceil(entry.storedBytes / 4) * 4);
  let at = 0;
  for await (const chunk of entry.raw!(2 ** 23)) {
    out.set(chunk, at);
    at += chunk.length;
  }
  return out;
}
