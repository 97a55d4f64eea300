import { platform } from "#platform";
import { DeviceError, DeviceLostError, LifetimeError, OutOfMemoryError, ShapeError } from "../errors.ts";
import { INSPECT } from "../inspect.ts";
import type { GPUDevice } from "../platform/global-types.ts";
import { adapterName } from "./adapter-name.ts";
import { BufferPool, type PoolStatistics, type Storage } from "./buffer-pool.ts";
import { bindingLimit, type DeviceInfo, deviceInfo, type Feature, type KernelStyle } from "./device-info.ts";
import { DTYPE_BYTES, type DType, decode, encode, type HostArray } from "./dtype.ts";
import { Fate, type Guard } from "./fate.ts";
import { SHOWN } from "./first-values.ts";
import { KernelChoices } from "./kernel-choices.ts";
import { CLEAR, EMPTY, WRITE } from "./memory-operations.ts";
import { announce, apply, type OperationRecord } from "./operation.ts";
import { PipelineCache } from "./pipelines.ts";
import type { Profiler } from "./profiler.ts";
import { readTensors } from "./read.ts";
import { Recorder, type RecorderCounters } from "./recorder.ts";
import { Scope } from "./scope.ts";
import { checkShape, type Shape, showShape, sizeOf } from "./shape.ts";
import { Tensor } from "./tensor.ts";

/** Counts of dispatches, submits, pipelines and bind groups, and of bytes written from the host. */
export interface DeviceCounters extends RecorderCounters {
  pipelines: number;
  bindGroups: number;
  bytesWritten: number;
}

/**
 * A WebGPU device together with its buffer pool, its caches and the commands recorded but not yet submitted.
 *
 * Errors that WebGPU reports late (validation, out of memory) are thrown by the `read()` of any tensor that came to nothing
 * by them, and by the next `sync()`; reads of other tensors are not disturbed. After a device loss every use throws
 * DeviceLostError.
 */
export class Device {
  /** The WebGPU device, which other code may use as well. */
  readonly gpu: GPUDevice;
  /** Adapter, features and preferred kernels. */
  readonly info: DeviceInfo;
  /** @internal */
  readonly pool: BufferPool;
  /** @internal */
  readonly recorder: Recorder;
  /** @internal */
  readonly pipelines: PipelineCache;
  /** Most bytes of a tensor that one binding can show to a kernel. */
  readonly maxBindingBytes: number;
  /** @internal */
  readonly observers = new Set<(record: OperationRecord) => void>();
  /** @internal Told when few values are alive: between the blocks of a stack. */
  readonly boundaryObservers = new Set<() => void>();
  /** Which of several kernels that compute the same is taken. */
  choices = new KernelChoices();
  /** @internal Set while somebody profiles. */
  profiler: Profiler | undefined;

  readonly #scopes: { current: Scope | undefined } = { current: undefined };
  /** Outcomes that WebGPU still owes. */
  readonly #pending = new Set<Promise<unknown>>();
  /** What came to nothing and nobody has been told of yet. */
  #unreported: Fate[] = [];
  #lost: DeviceLostError | undefined;
  #bytesWritten = 0;

  /** Wraps a GPUDevice that the caller made (to share it with other WebGPU code, say). */
  constructor(
    gpu: GPUDevice,
    options: { kernels?: KernelStyle | undefined; maxBindingBytes?: number | undefined } = {},
  ) {
    this.gpu = gpu;
    this.info = deviceInfo(gpu, options.kernels);
    this.maxBindingBytes = bindingLimit(gpu, options.maxBindingBytes);

    const guard: Guard = (what, fate, fn) => this.guard(what, fate, fn);
    this.recorder = new Recorder(gpu, guard, (modes, buffers) => this.pipelines.bindGroup(modes, buffers));
    this.pipelines = new PipelineCache(
      gpu,
      this.recorder.parameterLayout,
      guard,
      // GPUs' drivers keep little for a group, and a collection halts a large program.
      this.info.fallback ? platform.collectGarbage : () => {},
    );
    this.pool = new BufferPool(
      gpu,
      gpu.limits.maxBufferSize,
      guard,
      (storage) =>
        this.#inTurn(() => {
          this.pipelines.forget(storage);
          storage.buffer.destroy();
        }),
      () => this.recorder.batch,
    );
    gpu.addEventListener("uncapturederror", ({ error }) => {
      const fate = new Fate();
      const failure = new DeviceError(`WebGPU reported an error outside of any operation: ${error.message}`);
      fate.expect(Promise.resolve(failure));
      this.#unreported.push(fate);
    });
    gpu.lost.then(({ reason, message }) => {
      this.#lost = new DeviceLostError(
        `the WebGPU device was lost (${reason}): ${message || "no details given"}`,
      );
    });
  }

  /** Whether the device was opened with this feature. */
  has(feature: Feature): boolean {
    return this.gpu.features.has(feature);
  }

  /** @internal */
  get currentScope(): Scope | undefined {
    return this.#scopes.current;
  }

  /** @internal Whether somebody goes back through what is computed: what is kept from earlier is then made anew. */
  get isTaped(): boolean {
    return this.boundaryObservers.size > 0;
  }

  /** What the device has done since it was opened; for tests and benchmarks. */
  get counters(): DeviceCounters {
    return {
      ...this.recorder.counters,
      pipelines: this.pipelines.pipelineCount,
      bindGroups: this.pipelines.bindGroupCount,
      bytesWritten: this.#bytesWritten,
    };
  }

  /** Buffers and bytes in use and waiting for reuse. */
  get memory(): Readonly<PoolStatistics> {
    return this.pool.statistics;
  }

  /** The most bytes that tensors had in use at a time, weights included, since the device was opened or {@link resetPeak}. */
  get peakBytes(): number {
    return this.pool.peakBytes;
  }

  /** Begins the count of {@link peakBytes} anew, with what is in use now. */
  resetPeak(): void {
    this.pool.resetPeak();
  }

  /**
   * A tensor with the given values, row-major. A plain number makes a scalar; typed integer arrays default to i32 or
   * u32, everything else to f32.
   *
   * @example device.tensor([1, 2, 3, 4, 5, 6], { shape: [2, 3] })
   */
  tensor<D extends DType = "f32">(
    values: number | ArrayLike<number>,
    { shape, dtype }: { shape?: Shape; dtype?: D } = {},
  ): Tensor<D> {
    const array = typeof values === "number" ? [values] : values;
    const type = (dtype ??
      (array instanceof Int32Array ? "i32" : array instanceof Uint32Array ? "u32" : "f32")) as D;
    // A buffer that recorded commands still use would have to be submitted first, so take an idle one.
    const dims = shape ?? (typeof values === "number" ? [] : [array.length]);
    const tensor = this.#allocate(dims, type, "tensor", this.recorder.batch);
    if (tensor.size !== array.length) {
      const found = array.length;
      tensor.dispose();
      throw new ShapeError(
        `tensor: shape ${showShape(tensor.shape)} has ${tensor.size} elements, but ${found} values were given`,
      );
    }
    const bytes = encode(array, type);
    this.write(tensor, bytes);
    tensor.remember(decode(bytes, type, Math.min(SHOWN, array.length)), tensor.storage.writes);
    return tensor;
  }

  /** A tensor of zeros. Throws ShapeError. */
  zeros<D extends DType = "f32">(shape: Shape, dtype: D = "f32" as D): Tensor<D> {
    const tensor = apply(CLEAR, [this.empty(shape, dtype, "zeros")], {}) as Tensor<D>;
    tensor.remember(new Uint8Array(Math.min(SHOWN, tensor.size)), tensor.storage.writes);
    return tensor;
  }

  /** A tensor whose contents are undefined until something writes them. `label` names it in error messages. */
  empty<D extends DType>(shape: Shape, dtype: D, label = "empty"): Tensor<D> {
    return this.#allocate(shape, dtype, label);
  }

  /**
   * Overwrites part of a contiguous tensor's memory with raw bytes, `byteOffset` from its first element. This is the
   * way weights get in; other tensors count as immutable. Offset and length are multiples of four bytes.
   */
  write(tensor: Tensor, bytes: Uint8Array<ArrayBuffer>, byteOffset = 0): void {
    const start = tensor.offset * DTYPE_BYTES[tensor.dtype] + byteOffset;
    const room = Math.ceil(tensor.bytes / 4) * 4;
    if (!tensor.contiguous || start % 4 !== 0 || bytes.length % 4 !== 0 || byteOffset + bytes.length > room) {
      throw new ShapeError(
        `write: expected a multiple of 4 bytes within the ${room} bytes of a contiguous tensor, found ` +
          `${bytes.length} bytes at ${byteOffset} of ${tensor} (strides ${showShape(tensor.strides)})`,
      );
    }
    this.assertUsable();
    const { storage } = tensor;
    // A host write lands before everything not yet submitted, so commands that still read this buffer go first.
    if (storage.lastUse === this.recorder.batch) this.recorder.flush();
    const content = this.recorder.timer ? bytes.slice() : bytes;
    const write = () => this.gpu.queue.writeBuffer(storage.buffer, start, content);
    this.#inTurn(() => {
      if (storage.allocation.fine) write();
      else this.guard("writing a tensor", storage.allocation, write);
    });
    storage.writes++;
    this.#bytesWritten += bytes.length;
    announce(this, WRITE, [tensor], { bytes, byteOffset }, tensor);
  }

  /**
   * Has `observer` called with a record of everything that makes, views or changes a tensor, after it was recorded; what
   * an operation does within itself is part of its own record. For counting, profiling and differentiation. Several may
   * observe; what they do themselves is not told. Returns the function that ends it.
   *
   * @example const stop = device.observe(({ operation }) => names.add(operation.name));
   */
  observe(observer: (record: OperationRecord) => void): () => void {
    const own = (record: OperationRecord) => observer(record); // the same function may be given twice
    this.observers.add(own);
    return () => void this.observers.delete(own);
  }

  /** Copies several tensors to the host in one round trip, row-major. See {@link Tensor.read}. */
  async read<const T extends readonly Tensor[]>(
    tensors: T,
  ): Promise<{ [K in keyof T]: T[K] extends Tensor<infer D> ? HostArray<D> : never }> {
    this.assertUsable();
    const values = await readTensors(this, tensors);
    await this.choices.settle();
    return values as never;
  }

  /** Submits everything recorded and waits until the GPU has done it; throws what it reported. */
  async sync(): Promise<void> {
    this.assertUsable();
    this.recorder.flush();
    if (this.recorder.timer) await this.recorder.timer.drain();
    await this.wait(this.gpu.queue.onSubmittedWorkDone());
    await this.settle();
    const [fate] = this.#unreported.splice(0);
    if (fate) throw fate.failure;
  }

  /**
   * Runs `fn` and disposes of every tensor made in it, except those in its result (itself, or in arrays, maps and
   * plain objects), which pass to the enclosing scope.
   */
  scope<T>(fn: () => T): T {
    const scope = this.openScope();
    try {
      const result = scope.enter(fn);
      if (result instanceof Promise) {
        result.catch(() => {}); // it will fail for want of its tensors, and nobody has it
        throw new LifetimeError("scope: the function must not be async; read results after the scope");
      }
      return scope.release(result);
    } finally {
      scope.dispose();
    }
  }

  /** A scope to enter and leave by hand; for computations that are suspended half-way. */
  openScope(): Scope {
    return new Scope(this.#scopes);
  }

  /** Gives buffers that are not in use back to the driver. */
  trim(): void {
    this.recorder.flush();
    this.pool.trim();
  }

  /** Which adapter it is, and what is in use. */
  [INSPECT](): string {
    const { liveBuffers, liveBytes } = this.memory;
    const use = `${liveBuffers} buffers, ${(liveBytes / 2 ** 20).toFixed(1)} MiB in use`;
    const software = this.info.fallback ? "a software driver, " : "";
    return `Device ${adapterName(this.info)} (${software}${this.info.kernels} kernels): ${this.#lost ? "lost" : use}`;
  }

  /** Ends the device, after the work submitted so far. */
  async destroy(): Promise<void> {
    if (this.#lost) return;
    this.recorder.flush();
    if (this.recorder.timer) await this.recorder.timer.drain();
    await this.wait(this.gpu.queue.onSubmittedWorkDone());
    this.gpu.destroy();
    await this.gpu.lost;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.destroy();
  }

  /** @internal Throws when the device is lost. */
  assertUsable(): void {
    if (this.#lost) throw this.#lost;
  }

  /** @internal Waits for something that the GPU settles. */
  wait<T>(promise: Promise<T>): Promise<T> {
    return this.info.fallback ? platform.waitForDriver(promise) : promise;
  }

  /** @internal Notes that a command of the current batch uses the buffer. */
  touch(storage: Storage, { writes }: { writes: boolean }): void {
    const { fate, batch } = this.recorder;
    storage.lastUse = batch;
    fate.dependOn(storage.allocation);
    // Also before writes: what was there may be written over in part only.
    fate.dependOn(storage.written);
    if (!writes) return;
    storage.written = fate;
    storage.writes++;
  }

  /**
   * @internal Waits for what WebGPU has to say of all that was asked of it so far. Throws when the device is lost, or the
   * cause when `fate` came to nothing.
   */
  async settle(fate?: Fate): Promise<void> {
    await this.wait(Promise.all(this.#pending));
    this.assertUsable();
    this.pool.sweep();
    const failure = fate?.failure;
    if (!failure) return;
    this.#unreported = this.#unreported.filter((other) => other.failure !== failure);
    throw failure;
  }

  /** @internal Runs `fn` within error scopes that are closed when it returns; the fate learns what they caught. */
  guard<T>(what: string, fate: Fate, fn: () => T): T {
    const { gpu } = this;
    gpu.pushErrorScope("validation");
    gpu.pushErrorScope("out-of-memory");
    try {
      return fn();
    } finally {
      // Popped from a lost device they may reject; `lost` tells that story.
      const found = Promise.all([gpu.popErrorScope(), gpu.popErrorScope()]).catch(() => [null, null]);
      const outcome = found.then(([memory, validation]) => this.#failure(what, memory, validation));
      const watched = fate.expect(outcome).finally(() => {
        this.#pending.delete(watched);
        if (fate.failure && !this.#unreported.includes(fate)) this.#unreported.push(fate);
      });
      this.#pending.add(watched);
    }
  }

  /** Does something to a buffer that commands flushed so far may use. */
  #inTurn(work: () => void): void {
    if (this.recorder.timer) this.recorder.timer.afterwards(work);
    else work();
  }

  #failure(
    what: string,
    memory: GPUError | null | undefined,
    validation: GPUError | null | undefined,
  ): DeviceError | undefined {
    const error = memory ?? validation;
    if (!error) return undefined;
    const Kind = memory ? OutOfMemoryError : DeviceError;
    const failure = new Kind(`WebGPU reported an error while ${what}: ${error.message}`);
    if (memory) this.trim(); // what is idle may be what is lacking
    return failure;
  }

  #allocate<D extends DType>(shape: Shape, dtype: D, label: string, idleBefore?: number): Tensor<D> {
    this.assertUsable();
    checkShape(label, shape);
    const bytes = Math.max(4, Math.ceil((sizeOf(shape) * DTYPE_BYTES[dtype]) / 4) * 4);
    const tensor = new Tensor(this, dtype, this.pool.acquire(bytes, label, idleBefore), shape);
    announce(this, EMPTY, [], { shape, dtype }, tensor);
    return tensor;
  }
}
