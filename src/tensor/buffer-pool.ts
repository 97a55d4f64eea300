import { OutOfMemoryError } from "../errors.ts";
import type { GPUBuffer, GPUDevice } from "../platform/global-types.ts";
import { Fate, type Guard } from "./fate.ts";

/** A GPU buffer on loan from the pool. Several tensors (views) may share one; the last to go gives it back. */
export interface Storage {
  readonly id: number;
  readonly buffer: GPUBuffer;
  readonly bytes: number;
  /** How many of its bytes are on loan: what was asked for. */
  used: number;
  references: number;
  /** How often it has been lent: with another number, it is another tensor's. */
  loans: number;
  /** Number of the submit that the latest recorded command using it belongs to. */
  lastUse: number;
  /** Of its allocation. Until that is known, the buffer may be one in name only. */
  readonly allocation: Fate;
  /** Of the batch that wrote it last; undefined for what the host wrote. */
  written: Fate | undefined;
  /** How often anything wrote to it; with another number, what is known of its contents is out of date. */
  writes: number;
  /** Keys of cached bind groups that name this buffer. */
  readonly bindGroups: Set<string>;
}

/** What the buffer pool holds. */
export interface PoolStatistics {
  /** Buffers and bytes in use by live tensors. */
  liveBuffers: number;
  liveBytes: number;
  /** Buffers and bytes waiting to be used again. */
  freeBuffers: number;
  freeBytes: number;
}

/** Idle bytes that are kept whatever is in use; beyond them, and beyond what is in use, growing gives some back first. */
const KEPT_BYTES = 2 ** 27;
/** Batches after which a buffer that nobody has used goes back to the driver, and how often to look. */
const IDLE_BATCHES = 4096;
const SWEEP_BATCHES = 512;

const STORAGE_USAGE = 0x80 | 0x04 | 0x08; // STORAGE | COPY_SRC | COPY_DST; GPUBufferUsage is no global in Node

/**
 * Reuses buffers by size class, the oldest first: which buffers a computation gets then depends on its sizes and on what
 * else is alive, not on the order in which earlier ones gave theirs back, and bind groups are met again. Handing a buffer on while commands that use it are still queued is safe: a queue
 * runs in order. Only writes from the host jump ahead of unsubmitted commands; `lastUse` guards those.
 */
export class BufferPool {
  readonly #gpu: GPUDevice;
  readonly #maxBytes: number;
  readonly #guard: Guard;
  readonly #destroy: (storage: Storage) => void;
  /** Number of the batch being recorded. */
  readonly #batch: () => number;
  /** By size; in each list the oldest last. */
  readonly #free = new Map<number, Storage[]>();
  readonly #statistics: PoolStatistics = { liveBuffers: 0, liveBytes: 0, freeBuffers: 0, freeBytes: 0 };
  #nextId = 0;
  #swept = 0;
  #peakBytes = 0;

  constructor(
    gpu: GPUDevice,
    maxBytes: number,
    guard: Guard,
    destroy: (storage: Storage) => void,
    batch: () => number,
  ) {
    this.#gpu = gpu;
    this.#maxBytes = maxBytes;
    this.#guard = guard;
    this.#destroy = destroy;
    this.#batch = batch;
  }

  get statistics(): Readonly<PoolStatistics> {
    return { ...this.#statistics };
  }

  /** The most bytes that were in use at a time since the pool was made, or the count begun anew. */
  get peakBytes(): number {
    return this.#peakBytes;
  }

  resetPeak(): void {
    this.#peakBytes = this.#statistics.liveBytes;
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
    const storage = this.#takeIdle(size, idleBefore) ?? this.#create(size, label);
    storage.references = 1;
    storage.loans++;
    storage.used = bytes;
    storage.written = undefined;
    this.#statistics.liveBuffers++;
    this.#statistics.liveBytes += size;
    this.#peakBytes = Math.max(this.#peakBytes, this.#statistics.liveBytes);
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
    if (list) list.splice(list.findLastIndex((other) => other.id > storage.id) + 1, 0, storage);
    else this.#free.set(storage.bytes, [storage]);
  }

  /** Destroys the buffers that nobody uses. The caller has submitted every command that names them. */
  trim(): void {
    this.#drop(() => true);
  }

  /** Gives back what has been idle for long. To be called now and then. */
  sweep(): void {
    const batch = this.#batch();
    if (batch - this.#swept < SWEEP_BATCHES) return;
    this.#swept = batch;
    this.#drop((storage) => storage.lastUse < batch - IDLE_BATCHES);
  }

  #takeIdle(size: number, idleBefore: number): Storage | undefined {
    const list = this.#free.get(size) ?? [];
    const index = list.findLastIndex(
      ({ lastUse, allocation }) => lastUse < idleBefore && !allocation.failure,
    );
    if (index < 0) return undefined;
    const [storage] = list.splice(index, 1);
    this.#statistics.freeBuffers--;
    this.#statistics.freeBytes -= size;
    return storage;
  }

  #create(bytes: number, label: string): Storage {
    this.#makeRoom(bytes);
    const allocation = new Fate();
    const buffer = this.#guard(`allocating ${bytes} bytes for ${label}`, allocation, () =>
      this.#gpu.createBuffer({ label, size: bytes, usage: STORAGE_USAGE }),
    );
    return {
      id: this.#nextId++,
      buffer,
      bytes,
      used: 0,
      references: 0,
      loans: 0,
      lastUse: -1,
      allocation,
      written: undefined,
      writes: 0,
      bindGroups: new Set(),
    };
  }

  /** Before the pool grows: idle buffers beyond its ceiling go, the ones unused for longest first. */
  #makeRoom(bytes: number): void {
    const ceiling = Math.max(KEPT_BYTES, this.#statistics.liveBytes);
    let surplus = this.#statistics.freeBytes + bytes - ceiling;
    if (surplus <= 0 || this.#statistics.freeBytes === 0) return;
    const batch = this.#batch();
    const idle = [...this.#free.values()].flat().filter(({ lastUse }) => lastUse < batch);
    const doomed = new Set<Storage>();
    for (const storage of idle.sort((a, b) => a.lastUse - b.lastUse)) {
      if (surplus <= 0) break;
      doomed.add(storage);
      surplus -= storage.bytes;
    }
    this.#drop((storage) => doomed.has(storage));
  }

  #drop(doomed: (storage: Storage) => boolean): void {
    for (const [size, list] of this.#free) {
      const kept = list.filter((storage) => {
        if (!doomed(storage)) return true;
        this.#destroy(storage);
        this.#statistics.freeBuffers--;
        this.#statistics.freeBytes -= size;
        return false;
      });
      if (kept.length > 0) this.#free.set(size, kept);
      else this.#free.delete(size);
    }
  }
}

/** Most bytes of the buffers that computations pass round; larger ones are mostly weights, which stay. */
const SMALL_BYTES = 2 ** 20;

/**
 * Rounds up to one of four steps per power of two (at most 25 % over), from 256 bytes: the sizes of activations meet again. Large
 * buffers have 32 (at most 3 % over), as they are what memory is spent on.
 */
function sizeClass(bytes: number): number {
  if (bytes <= 256) return 256;
  const halvings = bytes > SMALL_BYTES ? 5 : 2;
  const step = 2 ** Math.max(6, Math.floor(Math.log2(bytes - 1)) - halvings);
  return Math.ceil(bytes / step) * step;
}
