import { CheckpointError } from "../../../errors.ts";
import { type Shape, showShape, sizeOf } from "../../../tensor/shape.ts";
import { STORED_DTYPES } from "./stored-dtype.ts";

/** A tensor for {@link writeSafetensors}. */
export interface TensorToWrite {
  readonly name: string;
  /** The format's word for the dtype: `F32`, `F16`, `I64`… */
  readonly stored: string;
  readonly shape: Shape;
  /** The elements as little-endian bytes, or a function that streams them when their turn comes. */
  readonly data: Uint8Array | (() => AsyncIterable<Uint8Array>);
}

/**
 * A safetensors file, chunk by chunk: `fs.promises.writeFile` takes this as it is, a browser can collect it in a Blob.
 * Laid out as the reference implementation does: widest dtype first, then by name, the header padded to eight bytes, so
 * that every tensor is aligned. The same tensors give the same bytes, in whatever order they come. Throws
 * CheckpointError for a name that is taken or reserved, an unknown dtype, an impossible shape, or data of the wrong length.
 */
export async function* writeSafetensors(
  tensors: Iterable<TensorToWrite>,
  metadata: Readonly<Record<string, string>> = {},
): AsyncGenerator<Uint8Array, void, undefined> {
  const sorted = [...tensors].sort(
    (a, b) => elementBytes(b) - elementBytes(a) || (a.name < b.name ? -1 : a.name > b.name ? 1 : 0),
  );
  yield header(sorted, metadata);
  for (const tensor of sorted) {
    const expected = byteLength(tensor);
    let written = 0;
    for await (const chunk of typeof tensor.data === "function" ? tensor.data() : [tensor.data]) {
      written += chunk.length;
      if (written > expected) throw wrongLength(tensor, expected, written);
      yield chunk;
    }
    if (written !== expected) throw wrongLength(tensor, expected, written);
  }
}

/** The same as one array of bytes. */
export async function encodeSafetensors(
  ...file: Parameters<typeof writeSafetensors>
): Promise<Uint8Array<ArrayBuffer>> {
  const chunks: BlobPart[] = [];
  for await (const chunk of writeSafetensors(...file)) chunks.push(chunk as Uint8Array<ArrayBuffer>);
  return new Uint8Array(await new Blob(chunks).arrayBuffer());
}

function header(tensors: readonly TensorToWrite[], metadata: Readonly<Record<string, string>>): Uint8Array {
  // Put together as text: in an object, a tensor called __proto__ would be lost.
  const members: string[] = [];
  if (Object.keys(metadata).length > 0) members.push(`"__metadata__":${JSON.stringify(metadata)}`);
  const names = new Set(["__metadata__"]);
  let at = 0;
  for (const tensor of tensors) {
    const { name, stored, shape } = tensor;
    if (!shape.every((n) => Number.isSafeInteger(n) && n >= 0)) {
      throw new CheckpointError(`${name} cannot be written with the shape ${showShape(shape)}`);
    }
    if (names.has(name))
      throw new CheckpointError(`tensor name ${JSON.stringify(name)} is taken or reserved`);
    names.add(name);
    const end = at + byteLength(tensor);
    members.push(
      `${JSON.stringify(name)}:${JSON.stringify({ dtype: stored, shape, data_offsets: [at, end] })}`,
    );
    at = end;
  }
  const text = new TextEncoder().encode(`{${members.join(",")}}`);
  const padded = Math.ceil(text.length / 8) * 8;
  const out = new Uint8Array(8 + padded).fill(0x20);
  new DataView(out.buffer).setBigUint64(0, BigInt(padded), true);
  out.set(text, 8);
  return out;
}

function byteLength(tensor: TensorToWrite): number {
  return sizeOf(tensor.shape) * elementBytes(tensor);
}

function elementBytes({ name, stored }: TensorToWrite): number {
  const type = STORED_DTYPES.get(stored);
  if (!type) throw new CheckpointError(`${name} cannot be written as dtype ${stored}`);
  return type.bytes;
}

function wrongLength(
  { name, stored, shape }: TensorToWrite,
  expected: number,
  found: number,
): CheckpointError {
  return new CheckpointError(
    `${name} is ${stored} ${showShape(shape)}, ${expected} bytes, but its data has ${found} or more`,
  );
}
