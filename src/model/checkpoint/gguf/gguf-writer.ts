import { CheckpointError } from "../../../errors.ts";

/** A tensor of F32, and its name. */
export interface GgufTensorToWrite {
  readonly name: string;
  /** Outermost first. */
  readonly shape: readonly number[];
  readonly values: Float32Array;
}

const ALIGNMENT = 32;
const F32 = 0;
const I32 = 5;
const STRING = 8;

/**
 * A small GGUF file, version 3, little-endian (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md): texts and whole numbers
 * (as int32) for metadata, and tensors of F32. The same content gives the same bytes. Throws CheckpointError for a name that comes
 * twice, or values that do not fill the shape.
 */
export function encodeGguf(
  metadata: Readonly<Record<string, string | number>>,
  tensors: readonly GgufTensorToWrite[],
): Uint8Array<ArrayBuffer> {
  const entries = Object.entries(metadata);
  const header = new Bytes();
  header.text("GGUF");
  header.u32(3);
  header.u64(tensors.length);
  header.u64(entries.length);
  for (const [key, value] of entries) {
    header.string(key);
    header.u32(typeof value === "string" ? STRING : I32);
    if (typeof value === "string") header.string(value);
    else header.u32(value);
  }
  const names = new Set<string>();
  let offset = 0;
  for (const { name, shape, values } of tensors) {
    if (names.has(name)) throw new CheckpointError(`tensor name ${JSON.stringify(name)} is taken`);
    names.add(name);
    if (shape.reduce((product, n) => product * n, 1) !== values.length) {
      throw new CheckpointError(
        `${name}: ${values.length} values do not fill the shape [${shape.join(", ")}]`,
      );
    }
    header.string(name);
    header.u32(shape.length);
    for (const n of [...shape].reverse()) header.u64(n);
    header.u32(F32);
    header.u64(offset);
    offset += padded(values.byteLength);
  }
  const start = padded(header.length);
  const file = new Uint8Array(start + offset);
  file.set(header.bytes());
  let at = start;
  for (const { values } of tensors) {
    file.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength), at);
    at += padded(values.byteLength);
  }
  return file;
}

function padded(length: number): number {
  return Math.ceil(length / ALIGNMENT) * ALIGNMENT;
}

/** Bytes that are added to. */
class Bytes {
  readonly #bytes: number[] = [];

  get length(): number {
    return this.#bytes.length;
  }

  bytes(): Uint8Array {
    return Uint8Array.from(this.#bytes);
  }

  text(text: string): void {
    this.#bytes.push(...new TextEncoder().encode(text));
  }

  u32(value: number): void {
    for (let shift = 0; shift < 32; shift += 8) this.#bytes.push((value >>> shift) & 0xff);
  }

  u64(value: number): void {
    this.u32(value % 2 ** 32);
    this.u32(Math.floor(value / 2 ** 32));
  }

  /** Led by its length. */
  string(text: string): void {
    this.u64(new TextEncoder().encode(text).length);
    this.text(text);
  }
}
