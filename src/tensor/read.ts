import type { Device } from "./device.ts";
import { DTYPE_BYTES, decode, type HostArray } from "./dtype.ts";
import { Fate } from "./fate.ts";
import { isContiguous, sizeOf } from "./shape.ts";
import type { Tensor } from "./tensor.ts";

const MAP_READ = 1;
const STAGING_USAGE = 0x01 | 0x08; // MAP_READ | COPY_DST

/** Where a tensor's elements lie in the staging buffer. */
interface Span {
  tensor: Tensor;
  /** First byte in the tensor's own buffer, rounded down to the four bytes that copies need. */
  sourceByte: number;
  bytes: number;
  stagingByte: number;
  /** How often its buffer had been written when it was copied. */
  writes: number;
}

/** Copies tensors to the host in one submit and one mapping. Views bring only the span of memory that they cover. */
export async function readTensors(device: Device, tensors: readonly Tensor[]): Promise<HostArray[]> {
  const spans: Span[] = [];
  let total = 0;
  for (const tensor of tensors) {
    const [sourceByte, bytes] = coveredBytes(tensor);
    spans.push({ tensor, sourceByte, bytes, stagingByte: total, writes: tensor.storage.writes });
    total += bytes;
  }
  if (total === 0) return tensors.map((t) => decode(new Uint8Array(0), t.dtype, 0));

  const { recorder, gpu } = device;
  const fate = new Fate();
  const staging = device.guard(`allocating ${total} bytes to read results`, fate, () =>
    gpu.createBuffer({ label: "read", size: total, usage: STAGING_USAGE }),
  );
  for (const { tensor, sourceByte, bytes, stagingByte } of spans) {
    if (bytes === 0) continue;
    device.touch(tensor.storage, { writes: false });
    recorder.copy(tensor.storage.buffer, sourceByte, staging, stagingByte, bytes);
  }
  fate.dependOn(recorder.fate);
  recorder.flush();
  try {
    if (recorder.timer) await recorder.timer.drain();
    await device.wait(staging.mapAsync(MAP_READ));
    await device.settle(fate);
    const mapped = new Uint8Array(staging.getMappedRange());
    return spans.map((span) => {
      const { tensor, stagingByte, bytes, writes } = span;
      const elements = gather(span, mapped.slice(stagingByte, stagingByte + bytes));
      tensor.remember(elements, writes);
      return elements;
    });
  } catch (error) {
    await device.settle(fate); // a lost device or a reported error explains a failed mapping better than WebGPU does
    throw error;
  } finally {
    staging.destroy();
  }
}

function coveredBytes({ shape, strides, offset, dtype }: Tensor): [start: number, length: number] {
  if (sizeOf(shape) === 0) return [0, 0];
  const last = shape.reduce((at, n, i) => at + (n - 1) * strides[i]!, offset);
  const width = DTYPE_BYTES[dtype];
  const start = Math.floor((offset * width) / 4) * 4;
  const end = Math.ceil(((last + 1) * width) / 4) * 4;
  return [start, end - start];
}

function gather({ tensor, sourceByte }: Span, bytes: Uint8Array<ArrayBuffer>): HostArray {
  const { shape, strides, dtype } = tensor;
  const width = DTYPE_BYTES[dtype];
  const flat = decode(bytes, dtype, bytes.length / width);
  const first = tensor.offset - sourceByte / width;
  const size = sizeOf(shape);
  if (isContiguous(shape, strides)) {
    return first === 0 && flat.length === size ? flat : flat.slice(first, first + size);
  }
  const out = emptyLike(flat, size);
  const index = new Array<number>(shape.length).fill(0);
  let at = first;
  for (let i = 0; i < size; i++) {
    out[i] = flat[at]!;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      at += strides[axis]!;
      if (++index[axis]! < shape[axis]!) break;
      at -= strides[axis]! * shape[axis]!;
      index[axis] = 0;
    }
  }
  return out;
}

function emptyLike(array: HostArray, size: number): HostArray {
  if (array instanceof Int32Array) return new Int32Array(size);
  return array instanceof Uint32Array ? new Uint32Array(size) : new Float32Array(size);
}
