import { add } from "../kernels/elementwise/elementwise.ts";
import { accumulateInto } from "../kernels/movement/accumulate.ts";
import { copy } from "../kernels/movement/copy.ts";
import { sum } from "../kernels/reduction/reduce.ts";
import type { DType } from "../tensor/dtype.ts";
import { contiguousStrides, isContiguous, type Shape, sizeOf } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** How a tensor lies in the memory that a node stands for. */
export interface Place {
  readonly shape: Shape;
  readonly strides: readonly number[];
  readonly offset: number;
  readonly dtype: DType;
}

/**
 * A buffer as an operation (or a caller) filled it, with what the result changes by each of its elements. Views of one
 * buffer share a node, so the gradient of a view is a view of the gradient.
 */
export class Node {
  /** Number of the segment that computes it; none for what comes from outside. */
  readonly segment: number | undefined;
  /** Elements of the buffer. */
  readonly count: number;
  /** Somebody asks for its gradient, which therefore stays. */
  watched = false;
  /** f32 [count], possibly part of a larger buffer */
  #cotangent: Tensor | undefined;
  /** Nobody else looks at the cotangent's buffer, so that it may grow in place. */
  #own = false;

  constructor(count: number, segment: number | undefined) {
    this.count = count;
    this.segment = segment;
  }

  get reached(): boolean {
    return this.#cotangent !== undefined;
  }

  /** The gradient of a view, f32 of its shape; undefined where nothing has been added. */
  at({ shape, strides, offset }: Place): Tensor | undefined {
    const all = this.#cotangent;
    return all?.view(shape, strides, all.offset + offset);
  }

  /** The same, where it is the whole node in row-major order. */
  whole(place: Place): Tensor | undefined {
    const simple = place.offset === 0 && sizeOf(place.shape) === this.count;
    return simple && isContiguous(place.shape, place.strides) ? this.at(place) : undefined;
  }

  /** Takes another gradient of the whole node in place of what there was. */
  replace(gradient: Tensor): void {
    const whole = gradient.contiguous ? gradient.alias() : copy(gradient);
    const flat = whole.reshape([this.count]);
    whole.dispose();
    this.#take(flat, false);
  }

  /** Adds to the gradient of a view. */
  add(place: Place, gradient: Tensor): void {
    const { shape, strides, offset } = place;
    const { device } = gradient;
    const [total, own] = device.scope(() => {
      // What was broadcast has been read several times: its gradients add up.
      const repeated = shape.flatMap((n, axis) => (n > 1 && strides[axis] === 0 ? [axis] : []));
      const once = shape.map((n, axis) => (repeated.includes(axis) ? 1 : n));
      const part = repeated.length > 0 ? sum(gradient, repeated, { keepDims: true }) : gradient;
      const before = this.#cotangent;
      const flat = this.#flat({ ...place, shape: once }, part);
      if (flat && !before) return [flat, false];
      if (flat && before && !this.#own) return [add(before, flat), true];
      const target = this.#own ? before! : before ? copy(before) : device.zeros([this.count]);
      accumulateInto(flat ? target : target.view(once, strides, target.offset + offset), flat ?? part);
      return [target, true];
    });
    this.#take(total, own);
  }

  #take(total: Tensor, own: boolean): void {
    if (this.#cotangent !== total) this.#cotangent?.dispose();
    this.#cotangent = total;
    this.#own = own;
  }

  clear(): void {
    this.#cotangent?.dispose();
    this.#cotangent = undefined;
  }

  /** The gradient as [count], where it covers the node and lies in memory as the view does. */
  #flat({ shape, strides, offset }: Place, gradient: Tensor): Tensor | undefined {
    if (offset !== 0 || sizeOf(shape) !== this.count || gradient.dtype !== "f32") return undefined;
    if (!sameLayout(shape, strides, gradient.strides)) {
      if (!isContiguous(shape, strides)) return undefined;
      return copy(gradient).reshape([this.count]);
    }
    const steps = shape.map((n, axis) => ({ n, stride: strides[axis]! })).filter(({ n }) => n !== 1);
    const ordered = steps.sort((a, b) => b.stride - a.stride);
    const expected = contiguousStrides(ordered.map(({ n }) => n));
    if (!ordered.every(({ stride }, i) => stride === expected[i])) return undefined;
    return gradient.view([this.count], [1], gradient.offset);
  }
}

function sameLayout(shape: Shape, a: readonly number[], b: readonly number[]): boolean {
  return shape.every((n, axis) => n === 1 || a[axis] === b[axis]);
}

export function placeOf({ shape, strides, offset, dtype }: Tensor): Place {
  return { shape, strides, offset, dtype };
}
