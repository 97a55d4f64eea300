import { CheckpointError } from "../../../errors.ts";
import { nearest } from "../../../nearest.ts";
import type { ByteSource } from "../../../platform/platform.ts";
import { DTYPE_BYTES, type DType } from "../../../tensor/dtype.ts";
import type { Shape } from "../../../tensor/shape.ts";
import { aligned, DEFAULT_CHUNK_BYTES, type TensorEntry } from "../entries/tensor-entry.ts";
import { readSafetensorsHeader, type SafetensorsHeader, type StoredTensor } from "./safetensors-header.ts";
import { STORED_DTYPES, type StoredDType } from "./stored-dtype.ts";

/** An open safetensors file. Only the header is in memory. */
export class SafetensorsFile {
  /** The path or URL that it was opened from. */
  readonly name: string;
  /** What stands under `__metadata__`. */
  readonly metadata: ReadonlyMap<string, string>;
  readonly #entries: ReadonlyMap<string, TensorEntry>;
  readonly #source: ByteSource;

  private constructor(source: ByteSource, header: SafetensorsHeader) {
    this.name = source.name;
    this.metadata = header.metadata;
    this.#entries = new Map(header.tensors.map((t) => [t.name, new SafetensorsEntry(source, t)]));
    this.#source = source;
  }

  /** Reads and checks the header; closing the file closes the source. Throws CheckpointError. */
  static async open(source: ByteSource): Promise<SafetensorsFile> {
    return new SafetensorsFile(source, await readSafetensorsHeader(source));
  }

  /** In the order of their bytes. */
  get names(): string[] {
    return [...this.#entries.keys()];
  }

  /** All tensors, unread, in the order of the header. */
  get entries(): TensorEntry[] {
    return [...this.#entries.values()];
  }

  /** Whether there is a tensor of this name. */
  has(name: string): boolean {
    return this.#entries.has(name);
  }

  /** Throws CheckpointError with the nearest present name when there is no such tensor. */
  entry(name: string): TensorEntry {
    const entry = this.#entries.get(name);
    if (entry) return entry;
    const near = nearest(name, this.#entries.keys());
    throw new CheckpointError(`${this.name} has no tensor ${name}${near ? `; the nearest is ${near}` : ""}`);
  }

  /** Closes the source. */
  close(): Promise<void> {
    return this.#source.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

class SafetensorsEntry implements TensorEntry {
  readonly name: string;
  readonly shape: Shape;
  readonly stored: string;
  readonly storedBytes: number;
  readonly dtype: DType;
  readonly byteLength: number;
  readonly problem?: string;
  readonly #source: ByteSource;
  readonly #begin: number;
  readonly #type: StoredDType | undefined;

  constructor(source: ByteSource, { name, shape, inexact, stored, begin, end }: StoredTensor) {
    const type = STORED_DTYPES.get(stored);
    this.name = name;
    this.shape = shape;
    this.stored = stored;
    this.storedBytes = end - begin;
    this.dtype = type?.dtype ?? "u32";
    this.byteLength = type ? (this.storedBytes / type.bytes) * DTYPE_BYTES[type.dtype] : this.storedBytes;
    if (!type) {
      const known = [...STORED_DTYPES.keys()].join(", ");
      this.problem = `${source.name}: ${name} has dtype ${stored}; supported are ${known}`;
    } else if (inexact) {
      const found = `${stored} [${inexact.join(", ")}]`;
      this.problem = `${source.name}: ${name} is ${found}, which is empty but has sizes beyond 2^53`;
    }
    this.#source = source;
    this.#begin = begin;
    this.#type = type;
  }

  expect(): void {
    this.#source.expect?.(this.#begin, this.storedBytes);
  }

  async *stream(chunkBytes = DEFAULT_CHUNK_BYTES): AsyncGenerator<Uint8Array<ArrayBuffer>, void, undefined> {
    if (!this.#type || this.problem) throw new CheckpointError(this.problem!);
    const { bytes, dtype, convert } = this.#type;
    const widest = Math.max(bytes, DTYPE_BYTES[dtype]);
    const step = bytes * Math.max(8, Math.floor(chunkBytes / widest / 8) * 8);
    for await (const raw of this.raw(step)) {
      yield convert ? convert(raw, `${this.#source.name}: ${this.name}`) : raw;
    }
  }

  async *raw(chunkBytes: number): AsyncGenerator<Uint8Array<ArrayBuffer>, void, undefined> {
    for (let at = 0; at < this.storedBytes; at += chunkBytes) {
      const length = Math.min(chunkBytes, this.storedBytes - at);
      yield aligned(await this.#source.read(this.#begin + at, length));
    }
  }
}
