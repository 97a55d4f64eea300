import { platform } from "#platform";
import { CheckpointError } from "../errors.ts";
import { readTensor } from "../model/checkpoint/entries/tensor-entry.ts";
import { SafetensorsFile } from "../model/checkpoint/safetensors/safetensors.ts";
import { type Shape, showShape } from "../tensor/shape.ts";
import { expand, readThinned, type Thinned } from "./thinned.ts";

/** A tensor that somebody else computed. */
export interface Golden {
  readonly shape: Shape;
  /** Row-major; `OMITTED` where a thinned file has no value. */
  readonly values: Float32Array | Int32Array | Uint32Array;
}

/** A safetensors file of goldens, which remembers what has been read: the rest was compared with nothing. */
export class GoldenFile {
  readonly #file: SafetensorsFile;
  readonly #unread: Set<string>;
  readonly #thinned: ReadonlyMap<string, Thinned>;

  private constructor(file: SafetensorsFile) {
    this.#file = file;
    this.#thinned = readThinned(file.metadata, file.name);
    this.#unread = new Set(file.names);
  }

  /** Throws CheckpointError when the file is missing or damaged. */
  static async open(path: string): Promise<GoldenFile> {
    const source = await platform.openFile(path);
    try {
      return new GoldenFile(await SafetensorsFile.open(source));
    } catch (error) {
      await source.close();
      throw error;
    }
  }

  get names(): string[] {
    return this.#file.names.sort();
  }

  /** Names that nobody has read so far. */
  get unread(): string[] {
    return [...this.#unread].sort();
  }

  /** Throws CheckpointError when there is no such tensor. */
  shape(name: string): Shape {
    return this.#thinned.get(name)?.shape ?? this.#file.entry(name).shape;
  }

  has(name: string): boolean {
    return this.#file.has(name);
  }

  /** Throws CheckpointError when there is no such tensor, or it has another number of dimensions than `rank`. */
  async read(name: string, rank?: number): Promise<Golden> {
    const entry = this.#file.entry(name);
    const { dtype } = entry;
    const shape = this.shape(name);
    if (rank !== undefined && shape.length !== rank) {
      const where = `${this.#file.name}: ${name}`;
      throw new CheckpointError(`${where}: expected ${rank} dimensions, found ${showShape(shape)}`);
    }
    if (dtype !== "f32" && dtype !== "i32" && dtype !== "u32") {
      const where = `${this.#file.name}: ${name}`;
      throw new CheckpointError(`${where}: expected 32-bit or small whole numbers, found ${entry.stored}`);
    }
    const { buffer } = await readTensor(entry);
    this.#unread.delete(name);
    const thinned = this.#thinned.get(name);
    if (thinned)
      return { shape, values: expand(new Float32Array(buffer), thinned, `${this.#file.name}: ${name}`) };
    const Values = { f32: Float32Array, i32: Int32Array, u32: Uint32Array }[dtype];
    return { shape, values: new Values(buffer) };
  }

  close(): Promise<void> {
    return this.#file.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
