import { CheckpointError } from "../../../errors.ts";
import type { ByteSource } from "../../../platform/platform.ts";
import { DTYPE_BYTES, type DType } from "../../../tensor/dtype.ts";
import type { Shape } from "../../../tensor/shape.ts";
import type { PackedSource } from "../entries/packed-source.ts";
import { aligned, DEFAULT_CHUNK_BYTES, type TensorEntry } from "../entries/tensor-entry.ts";
import { ggmlPieces } from "../packing/ggml-blocks.ts";
import { PieceWriter } from "../packing/piece-writer.ts";
import { type GgufTensor, type GgufValue, readGgufHeader } from "./gguf-header.ts";
import { GGML_TYPES, type GgmlType } from "./gguf-types.ts";

/** Blocks are read in groups, so that types without blocks also give chunks of whole words. */
const GROUP = 8;

/** An open GGUF file: metadata and tensors under the file's own names. Only the header is in memory. */
export class GgufFile {
  /** The path or URL that it was opened from. */
  readonly name: string;
  readonly metadata: ReadonlyMap<string, GgufValue>;
  /** In the order of the file. */
  readonly entries: readonly GgufEntry[];
  readonly #source: ByteSource;

  private constructor(
    source: ByteSource,
    metadata: ReadonlyMap<string, GgufValue>,
    tensors: readonly GgufTensor[],
  ) {
    this.name = source.name;
    this.metadata = metadata;
    this.entries = tensors.map((tensor) => new GgufEntry(source, tensor));
    this.#source = source;
  }

  /** Reads and checks the header; closing the file closes the source. Throws CheckpointError. */
  static async open(source: ByteSource): Promise<GgufFile> {
    const { metadata, tensors } = await readGgufHeader(source);
    return new GgufFile(source, metadata, tensors);
  }

  /** Closes the source. */
  close(): Promise<void> {
    return this.#source.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** A tensor of a GGUF file. Quantised types are read as f32, or, matrices of most, as they are. */
export class GgufEntry implements TensorEntry {
  readonly name: string;
  readonly shape: Shape;
  readonly stored: string;
  readonly storedBytes: number;
  readonly dtype: DType;
  readonly byteLength: number;
  readonly packed?: PackedSource;
  readonly #source: ByteSource;
  readonly #begin: number;
  readonly #type: GgmlType;

  constructor(source: ByteSource, { name, shape, type, begin, end }: GgufTensor) {
    this.name = name;
    this.shape = shape;
    this.stored = type.name;
    this.storedBytes = end - begin;
    this.dtype = type.dtype ?? "f32";
    this.byteLength = (this.storedBytes / type.blockBytes) * type.blockElements * DTYPE_BYTES[this.dtype];
    this.#source = source;
    this.#begin = begin;
    this.#type = type;
    if (type.blocks && shape.length === 2) {
      const [rows, rowStride] = shape as readonly [number, number];
      this.packed = { format: type.blocks.format, rows, rowStride, pieces: () => this.#blocks() };
    }
  }

  /** Says that it will be read. */
  expect(): void {
    this.#source.expect?.(this.#begin, this.storedBytes);
  }

  /** Throws CheckpointError for a type that cannot be read. */
  stream(chunkBytes = DEFAULT_CHUNK_BYTES): AsyncGenerator<Uint8Array<ArrayBuffer>, void, undefined> {
    const { blockElements, blockBytes } = this.#type;
    const groupBytes = GROUP * blockElements * DTYPE_BYTES[this.dtype];
    return this.#pieces(GROUP * blockBytes * Math.max(1, Math.floor(chunkBytes / groupBytes)));
  }

  /** Like {@link stream}, but each chunk has exactly `rows` rows (the innermost dimension), the last perhaps fewer. */
  streamRows(rows: number): AsyncGenerator<Uint8Array<ArrayBuffer>, void, undefined> {
    const { blockElements, blockBytes } = this.#type;
    return this.#pieces(rows * ((this.shape.at(-1) ?? 1) / blockElements) * blockBytes);
  }

  async *#blocks() {
    const blocks = this.#type.blocks!;
    const writer = new PieceWriter();
    const step = blocks.bytes * GROUP * Math.max(1, Math.floor(DEFAULT_CHUNK_BYTES / (blocks.bytes * GROUP)));
    for (let at = 0; at < this.storedBytes; at += step) {
      const raw = await this.#source.read(this.#begin + at, Math.min(step, this.storedBytes - at));
      for (const { part, bytes } of ggmlPieces(blocks, raw)) yield* writer.add(part, bytes);
    }
    yield* writer.finish();
  }

  async *#pieces(rawBytes: number): AsyncGenerator<Uint8Array<ArrayBuffer>, void, undefined> {
    const { dtype, dequantise } = this.#type;
    if (!dtype) {
      const readable = [...GGML_TYPES.values()].filter((type) => type.dtype).map((type) => type.name);
      const supported = readable.join(", ");
      throw new CheckpointError(
        `${this.#source.name}: ${this.name} is ${this.stored}; supported are ${supported}`,
      );
    }
    for (let at = 0; at < this.storedBytes; at += rawBytes) {
      const length = Math.min(rawBytes, this.storedBytes - at);
      const raw = await this.#source.read(this.#begin + at, length);
      yield dequantise ? new Uint8Array(dequantise(raw).buffer) : aligned(raw);
    }
  }
}
