import { LifetimeError, ShapeError } from "../../errors.ts";
import { INSPECT } from "../../inspect.ts";
import type { Device } from "../device.ts";
import { showShape } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { type PackedFormat, type PartName, partsOf } from "./packed-format.ts";

/** Where the elements of a packed matrix (or of a view of one) are. */
export interface PackedLayout {
  readonly format: PackedFormat;
  readonly shape: readonly [number, number];
  /** Distance between neighbours along each dimension, in elements. */
  readonly strides: readonly [number, number];
  /** Of the first element, in elements. */
  readonly offset: number;
}

export type PackedParts = ReadonlyMap<PartName, Tensor>;

/**
 * A matrix that is kept in a few bits an element, in buffers of codes and of scales. Kernels that take an operand of numbers
 * read it like any tensor; it has no elements to read on the host before it is unpacked (`unpack`). Rows and its transpose
 * are views.
 */
export class Packed {
  readonly device: Device;
  readonly layout: PackedLayout;
  readonly parts: PackedParts;
  #disposed = false;

  /** Takes over the parts. Throws ShapeError for those that are too small, LifetimeError for those of several devices. */
  constructor(layout: PackedLayout, parts: PackedParts) {
    const { format, shape, strides, offset } = layout;
    const end = offset + 1 + shape.reduce((last, n, i) => last + Math.max(0, n - 1) * strides[i]!, 0);
    for (const { name, dtype, length } of partsOf(format, Math.max(end, 0))) {
      const part = parts.get(name);
      if (part?.dtype !== dtype || part.rank !== 1 || part.size < length || part.offset !== 0) {
        throw new ShapeError(
          `a matrix ${showShape(shape)} in ${format.kind} needs ${name} ${dtype} [${length}], found ${part ?? "nothing"}`,
        );
      }
    }
    const [first, ...others] = [...parts.values()];
    if (others.some(({ device }) => device !== first!.device)) {
      throw new LifetimeError("the parts of a packed matrix live on different devices");
    }
    this.device = first!.device;
    this.layout = layout;
    this.parts = parts;
  }

  get format(): PackedFormat {
    return this.layout.format;
  }

  get shape(): readonly [number, number] {
    return this.layout.shape;
  }

  get strides(): readonly [number, number] {
    return this.layout.strides;
  }

  get offset(): number {
    return this.layout.offset;
  }

  readonly rank = 2;

  get size(): number {
    return this.shape[0] * this.shape[1];
  }

  /** Bytes that the parts take. */
  get bytes(): number {
    return [...this.parts.values()].reduce((sum, { bytes }) => sum + bytes, 0);
  }

  dim(axis: 0 | 1 | -1 | -2): number {
    return this.shape.at(axis)!;
  }

  transpose(): Packed {
    const [rows, columns] = this.shape;
    const [down, across] = this.strides;
    return this.#view({ ...this.layout, shape: [columns, rows], strides: [across, down] });
  }

  /** Rows start..end-1. Throws ShapeError when out of range. */
  rows(start: number, end: number): Packed {
    const [rows, columns] = this.shape;
    if (!(Number.isInteger(start) && Number.isInteger(end) && 0 <= start && start <= end && end <= rows)) {
      throw new ShapeError(`rows: ${start}..${end} does not lie in ${showShape(this.shape)}`);
    }
    const offset = this.offset + start * this.strides[0];
    return this.#view({ ...this.layout, shape: [end - start, columns], offset });
  }

  /** Another handle on the same elements, with a lifetime of its own. */
  alias(): Packed {
    return this.#view(this.layout);
  }

  #view(layout: PackedLayout): Packed {
    return new Packed(layout, new Map([...this.parts].map(([name, part]) => [name, part.alias()])));
  }

  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    for (const part of this.parts.values()) part.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  toString(): string {
    return `${this.format.kind}${showShape(this.shape)}`;
  }

  [INSPECT](): string {
    return `Packed ${this.format.kind} ${showShape(this.shape)}, ${this.bytes} bytes`;
  }
}

/** What a kernel reads numbers from. */
export type Operand = Tensor | Packed;

/** Whether the operand has a buffer beyond the binding limit, which a kernel sees in windows. */
export function spansWindows(operand: Operand): boolean {
  const tensors = operand instanceof Packed ? [...operand.parts.values()] : [operand];
  return tensors.some(({ storage, device }) => storage.bytes > device.maxBindingBytes);
}
