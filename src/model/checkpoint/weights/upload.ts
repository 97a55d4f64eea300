import type { Device } from "../../../tensor/device.ts";
import { Packed } from "../../../tensor/packed/packed.ts";
import { type PartName, partsOf } from "../../../tensor/packed/packed-format.ts";
import type { Scope } from "../../../tensor/scope.ts";
import type { Shape } from "../../../tensor/shape.ts";
import type { Tensor } from "../../../tensor/tensor.ts";
import type { PackedSource } from "../entries/packed-source.ts";
import { padded, type TensorEntry } from "../entries/tensor-entry.ts";

/** Bytes handed to the driver before waiting for it; bounds the host memory that loading takes. */
const MAX_IN_FLIGHT_BYTES = 32 * 2 ** 20;

/** Bytes of weights that are on the device, of all. */
export interface LoadProgress {
  loadedBytes: number;
  totalBytes: number;
}

/** Brings tensors of a checkpoint to the device, into the memory of a scope, piece by piece. */
export class Uploader {
  readonly #device: Device;
  readonly #memory: Scope;
  readonly #onProgress: ((progress: LoadProgress) => void) | undefined;
  /** Of all that is to come; grows where more turns up. */
  totalBytes: number;
  #loadedBytes = 0;
  #inFlight = 0;

  constructor(
    device: Device,
    memory: Scope,
    totalBytes: number,
    onProgress: ((progress: LoadProgress) => void) | undefined,
  ) {
    this.#device = device;
    this.#memory = memory;
    this.totalBytes = totalBytes;
    this.#onProgress = onProgress;
  }

  async tensor(entry: TensorEntry, shape: Shape): Promise<Tensor> {
    const tensor = this.#memory.enter(() => this.#device.empty(shape, entry.dtype, entry.name));
    await this.fill(tensor, entry);
    return tensor;
  }

  /** Writes an entry into a tensor, from so many bytes on. */
  async fill(tensor: Tensor, entry: TensorEntry, offset = 0): Promise<void> {
    let at = offset;
    for await (const chunk of entry.stream()) {
      await this.#write(tensor, padded(chunk), at);
      at += chunk.length;
      this.#advance(chunk.length);
    }
  }

  /** A matrix [rows, width] that is packed; `bytes` of progress when it is there. */
  async packed(
    source: PackedSource,
    [rows, width]: readonly [number, number],
    bytes: number,
  ): Promise<Packed> {
    const { format, rowStride } = source;
    const parts = new Map(
      partsOf(format, rows * rowStride).map(({ name, dtype, length }) => [
        name,
        this.#memory.enter(() => this.#device.empty([length], dtype, name)),
      ]),
    );
    const ends = new Map<PartName, number>();
    for await (const { part, bytes: piece } of source.pieces()) {
      const at = ends.get(part) ?? 0;
      await this.#write(parts.get(part)!, piece, at);
      ends.set(part, at + piece.length);
    }
    this.#advance(bytes);
    return new Packed({ format, shape: [rows, width], strides: [rowStride, 1], offset: 0 }, parts);
  }

  async #write(tensor: Tensor, bytes: Uint8Array<ArrayBuffer>, offset: number): Promise<void> {
    this.#device.write(tensor, bytes, offset);
    this.#inFlight += bytes.length;
    if (this.#inFlight < MAX_IN_FLIGHT_BYTES) return;
    await this.#device.sync();
    this.#inFlight = 0;
  }

  #advance(bytes: number): void {
    this.#loadedBytes += bytes;
    this.#onProgress?.({ loadedBytes: this.#loadedBytes, totalBytes: this.totalBytes });
  }
}
