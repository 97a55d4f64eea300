import type { GPUBuffer, GPUDevice, GPUError } from "../platform/global-types.ts";
import { OutOfMemoryError } from "./errors.ts";

/** A GPU buffer on loan from the pool. Several tensors (views) may share one; the last to go gives it back. */
export interface Storage {
  readonly id: number;
  readonly buffer: GPUBuffer;
  readonly bytes: number;
  references: number;
  /** Number of the submit that the latest recorded command using it belongs to. */
  lastUse: number;
  /** Keys of cached bind groups that name this buffer. */
  readonly bindGroups: Set<string>;
}

export interface PoolStatistics {
  /** Buffers and bytes in use by live tensors. */
  liveBuffers: number;
  liveBytes: number;
  /** Buffers and bytes waiting to be used again. */
  freeBuffers: number;
  freeBytes: number;
}

const STORAGE_USAGE = 0x80 | 0x04 | 0x08; // STORAGE | COPY_SRC | COPY_DST; GPUBufferUsage is no global in Node

/**
 * Reuses buffers by size class. Handing a buffer on while commands that use it are still queued is safe: a queue
 * runs in order. Only writes from the host jump ahead of unsubmitted commands; `lastUse` guards those.
 */
export class BufferPool {
  readonly #gpu: GPUDevice;
  readonly #maxBytes: number;
  readonly #onErrors: (error: Promise<GPUError | null>) => void;
  readonly #onDestroy: (storage: Storage) => void;
  readonly #free = new Map<number, Storage[]>();
  readonly #statistics: PoolStatistics = { liveBuffers: 0, liveBytes: 0, freeBuffers: 0, freeBytes: 0 };
  #nextId = 0;

  constructor(
    gpu: GPUDevice,
    maxBytes: number,
    onErrors: (error: Promise<GPUError | null>) => void,
    onDestroy: (storage: Storage) => void,
  ) {
    this.#gpu = gpu;
    this.#maxBytes = maxBytes;
    this.#onErrors = onErrors;
    this.#onDestroy = onDestroy;
  }

  get statistics(): Readonly<PoolStatistics> {
    return { ...this.#statistics };
  }

  /**
   * A buffer of at least `bytes`, contents undefined. `idleBefore` asks for one that no command of that batch or a later
   * one uses. Throws OutOfMemoryError above the adapter's buffer limit.
   */
  acquire(bytes: number, label: string, idleBefore = Number.POSITIVE_INFINITY): Storage {
    if (bytes > this.#maxBytes) {
      throw new OutOfMemoryError(
        `${label}: needs a buffer of ${bytes} bytes, but this adapter's largest buffer is ${this.#maxBytes} bytes`,
      );
    }
    const size = Math.min(sizeClass(bytes), this.#maxBytes);
    const free = this.#free.get(size) ?? [];
    const index = free.findLastIndex((storage) => storage.lastUse < idleBefore);
    const [reused] = index < 0 ? [] : free.splice(index, 1);
    if (reused) {
      this.#statistics.freeBuffers--;
      this.#statistics.freeBytes -= size;
    }
    const storage = reused ?? this.#create(size, label);
    storage.references = 1;
    this.#statistics.liveBuffers++;
    this.#statistics.liveBytes += size;
    return storage;
  }

  retain(storage: Storage): void {
    storage.references++;
  }

  release(storage: Storage): void {
    if (--storage.references > 0) return;
    this.#statistics.liveBuffers--;
    this.#statistics.liveBytes -= storage.bytes;
    this.#statistics.freeBuffers++;
    this.#statistics.freeBytes += storage.bytes;
    const list = this.#free.get(storage.bytes);
    if (list) list.push(storage);
    else this.#free.set(storage.bytes, [storage]);
  }

  /** Destroys the buffers that nobody uses. The caller has submitted every command that names them. */
  trim(): void {
    for (const list of this.#free.values()) {
      for (const storage of list) {
        this.#onDestroy(storage);
        storage.buffer.destroy();
      }
    }
    this.#free.clear();
    this.#statistics.freeBuffers = 0;
    this.#statistics.freeBytes = 0;
  }

  #create(bytes: number, label: string): Storage {
    this.#gpu.pushErrorScope("out-of-memory");
    const buffer = this.#gpu.createBuffer({ label, size: bytes, usage: STORAGE_USAGE });
    this.#onErrors(this.#gpu.popErrorScope());
    return { id: this.#nextId++, buffer, bytes, references: 0, lastUse: -1, bindGroups: new Set() };
  }
}

/** Rounds up to one of four steps per power of two (at most 25 % over), from 256 bytes. */
function sizeClass(bytes: number): number {
  if (bytes <= 256) return 256;
  const step = 2 ** Math.max(6, Math.floor(Math.log2(bytes - 1)) - 2);
  return Math.ceil(bytes / step) * step;
}
