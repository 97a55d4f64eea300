import { DTYPE_BYTES, decode } from "../../../tensor/dtype.ts";
import type { TensorEntry } from "../entries/tensor-entry.ts";

/** What numbers are read from. */
export type Floats = Pick<TensorEntry, "dtype" | "stream">;

/** Elements that come at a time at most, but for one whole run. */
const MOST = 2 ** 20;

/** A tensor's elements as numbers, each time a multiple of `run` of them but for the last. */
export async function* floatRuns(
  entry: Floats,
  run: number,
): AsyncGenerator<Float32Array<ArrayBuffer>, void, undefined> {
  let rest = new Float32Array();
  for await (const chunk of entry.stream(MOST * DTYPE_BYTES[entry.dtype])) {
    const values = decode(chunk, entry.dtype, chunk.length / DTYPE_BYTES[entry.dtype]);
    if (rest.length === 0 && values.length % run === 0 && values instanceof Float32Array) {
      yield values;
      continue;
    }
    const all = new Float32Array(rest.length + values.length);
    all.set(rest);
    all.set(values, rest.length);
    const whole = all.length - (all.length % run);
    if (whole > 0) yield all.subarray(0, whole);
    rest = all.slice(whole);
  }
  if (rest.length > 0) yield rest;
}

/** The elements of a matrix that is stored as [in, out], turned; for once it is whole in memory. */
export async function* turnedRuns(
  entry: Floats,
  [out, width]: readonly [out: number, width: number],
): AsyncGenerator<Float32Array<ArrayBuffer>, void, undefined> {
  const turned = new Float32Array(out * width);
  let at = 0;
  for await (const values of floatRuns(entry, out)) {
    for (const value of values) {
      turned[(at % out) * width + Math.floor(at / out)] = value;
      at++;
    }
  }
  yield turned;
}
