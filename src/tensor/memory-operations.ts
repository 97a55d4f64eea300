import type { DType } from "./dtype.ts";
import type { Operation } from "./operation.ts";
import type { Shape } from "./shape.ts";

/* What makes and fills memory without a kernel, as records: a tape does it again from these. */

/** Makes a tensor whose contents are undefined. */
export const EMPTY: Operation<{ shape: Shape; dtype: DType }> = {
  name: "empty",
  memory: true,
  run: (_, { shape, dtype }, device) => device.empty(shape, dtype),
};

/** Makes all elements of a new tensor 0. */
export const CLEAR: Operation<object> = {
  name: "clear",
  memory: true,
  run([tensor], _, device) {
    device.touch(tensor!.storage, { writes: true });
    device.recorder.clear(tensor!.storage.buffer, tensor!.storage.bytes);
    return tensor!;
  },
};

/** Writes bytes from the host. */
export const WRITE: Operation<{ bytes: Uint8Array<ArrayBuffer>; byteOffset: number }> = {
  name: "write",
  memory: true,
  run([tensor], { bytes, byteOffset }, device) {
    device.write(tensor!, bytes, byteOffset);
    return tensor!;
  },
};
