import { LifetimeError, ShapeError } from "../errors.ts";
import { INSPECT } from "../inspect.ts";
import type { Storage } from "./buffer-pool.ts";
import type { Device } from "./device.ts";
import { DTYPE_BYTES, type DType, type HostArray } from "./dtype.ts";
import { leadingView, SHOWN, showTensor } from "./first-values.ts";
import { announce, type Operation } from "./operation.ts";
import type { Scope } from "./scope.ts";
import {
  checkShape,
  contiguousStrides,
  isContiguous,
  normalizeAxis,
  type Shape,
  showShape,
  sizeOf,
} from "./shape.ts";

/**
 * A strided view of a GPU buffer. Tensors are immutable by convention: operations make new ones. Slicing, permuting,
 * broadcasting and (where the layout allows) reshaping make views of the same buffer without copying.
 *
 * Memory comes back when the last tensor of a buffer is disposed of: by `dispose()`, by `using`, or at the end of the
 * `device.scope` it was made in.
 */
export class Tensor<D extends DType = DType> {
  /** The device that holds it. */
  readonly device: Device;
  /** Type of its elements. */
  readonly dtype: D;
  /** Elements along each dimension; `[]` is a scalar. */
  readonly shape: Shape;
  /** Distance between neighbours along each dimension, in elements. */
  readonly strides: readonly number[];
  /** Of the first element within the buffer, in elements. */
  readonly offset: number;
  /** @internal */
  scope: Scope | undefined;
  readonly #storage: Storage;
  #disposed = false;
  /** The first elements, and how often the buffer had been written when they were. */
  #first: { readonly values: readonly number[]; readonly writes: number } | undefined;

  /** @internal Use `device.tensor`, `device.zeros` or an operation. */
  constructor(
    device: Device,
    dtype: D,
    storage: Storage,
    shape: Shape,
    strides: readonly number[] = contiguousStrides(shape),
    offset = 0,
  ) {
    this.device = device;
    this.dtype = dtype;
    this.shape = shape;
    this.strides = strides;
    this.offset = offset;
    this.#storage = storage;
    this.scope = device.currentScope;
    this.scope?.adopt(this);
  }

  /** Number of elements. */
  get size(): number {
    return sizeOf(this.shape);
  }

  /** Number of its dimensions. */
  get rank(): number {
    return this.shape.length;
  }

  /** Bytes that the elements of this view take. */
  get bytes(): number {
    return this.size * DTYPE_BYTES[this.dtype];
  }

  /** Whether its elements lie one after the other, in the order of its shape. */
  get contiguous(): boolean {
    return isContiguous(this.shape, this.strides);
  }

  /** Whether it has been freed; every use then throws LifetimeError. */
  get disposed(): boolean {
    return this.#disposed;
  }

  /** @internal Throws LifetimeError after disposal. */
  get storage(): Storage {
    if (this.#disposed)
      throw new LifetimeError(`tensor ${this} was used after it was disposed of (or its scope ended)`);
    return this.#storage;
  }

  /** Size along `axis`, which may be negative. */
  dim(axis: number): number {
    return this.shape[normalizeAxis("dim", axis, this.rank)]!;
  }

  /** The same elements under another shape of equal size. Throws ShapeError when the layout would need a copy. */
  reshape(shape: Shape): Tensor<D> {
    checkShape("reshape", shape);
    if (sizeOf(shape) !== this.size) {
      throw new ShapeError(
        `reshape: ${showShape(this.shape)} has ${this.size} elements, ${showShape(shape)} has ${sizeOf(shape)}`,
      );
    }
    if (!this.contiguous) {
      throw new ShapeError(
        `reshape: ${this} is not contiguous (strides ${showShape(this.strides)}); call contiguous(x) first`,
      );
    }
    return this.view(shape, contiguousStrides(shape), this.offset);
  }

  /** Reorders dimensions: dimension i of the result is dimension `order[i]` of this. */
  permute(order: readonly number[]): Tensor<D> {
    const axes = order.map((axis) => normalizeAxis("permute", axis, this.rank));
    if (axes.length !== this.rank || new Set(axes).size !== this.rank) {
      throw new ShapeError(
        `permute: expected each of ${this.rank} dimensions of ${showShape(this.shape)} once, found ${showShape(order)}`,
      );
    }
    return this.view(
      axes.map((a) => this.shape[a]!),
      axes.map((a) => this.strides[a]!),
      this.offset,
    );
  }

  /** Swaps the last two dimensions. */
  transpose(): Tensor<D> {
    const axes = this.shape.map((_, i) => i);
    if (axes.length < 2)
      throw new ShapeError(`transpose: expected at least 2 dimensions, found ${showShape(this.shape)}`);
    axes.push(...axes.splice(-2).reverse());
    return this.permute(axes);
  }

  /** Elements start..end-1 along `axis`; negative bounds count from the end. Throws ShapeError when out of range. */
  slice(axis: number, start: number, end: number = this.dim(axis)): Tensor<D> {
    const a = normalizeAxis("slice", axis, this.rank);
    const n = this.shape[a]!;
    const from = start < 0 ? start + n : start;
    const to = end < 0 ? end + n : end;
    if (!(Number.isInteger(from) && Number.isInteger(to) && 0 <= from && from <= to && to <= n)) {
      throw new ShapeError(
        `slice: ${start}..${end} does not lie in axis ${axis} of ${showShape(this.shape)}`,
      );
    }
    return this.view(
      this.shape.with(a, to - from),
      this.strides,
      this.offset + (to > from ? from * this.strides[a]! : 0),
    );
  }

  /** Rows start..end-1: `slice(0, start, end)`. */
  rows(start: number, end?: number): Tensor<D> {
    return this.slice(0, start, end);
  }

  /** Index `i` along the first dimension, which goes away. */
  at(i: number): Tensor<D> {
    const n = this.dim(0);
    const row = i < 0 ? i + n : i;
    if (!(Number.isInteger(row) && 0 <= row && row < n)) {
      throw new ShapeError(`at: index ${i} is out of range for ${showShape(this.shape)}`);
    }
    return this.view(this.shape.slice(1), this.strides.slice(1), this.offset + row * this.strides[0]!);
  }

  /** Repeats dimensions of size 1 (and adds leading ones) by stride 0. Throws ShapeError when sizes do not fit. */
  broadcastTo(shape: Shape): Tensor<D> {
    checkShape("broadcastTo", shape);
    const extra = shape.length - this.rank;
    const fits = extra >= 0 && this.shape.every((n, i) => n === 1 || n === shape[i + extra]);
    if (!fits)
      throw new ShapeError(`broadcastTo: ${showShape(this.shape)} does not broadcast to ${showShape(shape)}`);
    const strides = shape.map((n, i) =>
      i < extra || this.shape[i - extra] !== n ? 0 : this.strides[i - extra]!,
    );
    return this.view(shape, strides, this.offset);
  }

  /** Another handle on the same elements, with a lifetime of its own. */
  alias(): Tensor<D> {
    return this.view(this.shape, this.strides, this.offset);
  }

  /**
   * Copies the elements to the host, row-major. Everything recorded so far is submitted first. Rejects with
   * DeviceLostError, OutOfMemoryError or DeviceError when the GPU reported one of these.
   */
  async read(): Promise<HostArray<D>> {
    const [values] = await this.device.read<readonly Tensor[]>([this]);
    return values as HostArray<D>;
  }

  /** The only element of a tensor of size 1. */
  async item(): Promise<number> {
    if (this.size !== 1)
      throw new ShapeError(`item: expected one element, found shape ${showShape(this.shape)}`);
    return (await this.read())[0]!;
  }

  /**
   * One line with dtype, shape and the first eight elements, which are all that is read. The console prints the same of
   * tensors whose elements came from the host or have been read before, as long as they have not been overwritten since.
   * Throws what {@link read} throws.
   *
   * @example console.log(await x.show()); // Tensor f32 [2, 3]: 1, 2, 3, 4, 5, 6
   */
  async show(): Promise<string> {
    if (!this.#known() && this.size > 0) {
      using leading = leadingView(this);
      const { writes } = this.storage;
      this.remember(await leading.read(), writes);
    }
    return showTensor(this, this.#first?.values);
  }

  [INSPECT](): string {
    return showTensor(this, this.#known());
  }

  /** @internal Keeps the first of the elements, as they are when the buffer has been written so often. */
  remember(elements: ArrayLike<number>, writes: number): void {
    this.#first = {
      values: Array.from({ length: Math.min(SHOWN, elements.length) }, (_, i) => elements[i]!),
      writes,
    };
  }

  #known(): readonly number[] | undefined {
    return this.#disposed || this.#first?.writes !== this.#storage.writes ? undefined : this.#first.values;
  }

  /** Gives the memory back, once no other view uses it. Disposing twice is fine. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.scope?.forget(this);
    this.scope = undefined;
    this.device.pool.release(this.#storage);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** Dtype and shape: `f32[2, 3]`. */
  toString(): string {
    return `${this.dtype}${showShape(this.shape)}`;
  }

  /** @internal Other elements of the same buffer; the caller sees to it that they lie in it. */
  view(shape: Shape, strides: readonly number[], offset: number): Tensor<D> {
    const { storage } = this;
    this.device.pool.retain(storage);
    const made = new Tensor(this.device, this.dtype, storage, shape, strides, offset);
    announce(this.device, VIEW, [this], { shape, strides, offset }, made);
    return made;
  }
}

/** Strides and offset are those of the view within the buffer, in elements. */
const VIEW: Operation<{ shape: Shape; strides: readonly number[]; offset: number }> = {
  name: "view",
  memory: true,
  run: ([x], { shape, strides, offset }) => x!.view(shape, strides, offset),
};
