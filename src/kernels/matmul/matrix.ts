import { INSPECT } from "../../inspect.ts";
import type { Device } from "../../tensor/device.ts";
import type { DType } from "../../tensor/dtype.ts";
import { type Operand, Packed } from "../../tensor/packed/packed.ts";
import type { PackedKind } from "../../tensor/packed/packed-format.ts";
import { showShape } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { gatherRows } from "../movement/gather.ts";
import { unpack } from "../movement/unpack.ts";
import { type LinearOptions, linear } from "./linear.ts";

/**
 * A weight [out, in] (or an embedding [vocab, width]) by what is done with it, whether its numbers are stored as floats or
 * packed in a few bits each. Owns what it is made of.
 */
export class Matrix {
  /** What kernels read. */
  readonly operand: Operand;

  constructor(operand: Operand) {
    this.operand = operand;
  }

  get device(): Device {
    return this.operand.device;
  }

  get shape(): readonly [number, number] {
    return this.operand.shape as readonly [number, number];
  }

  /** How its numbers are stored. */
  get format(): DType | PackedKind {
    return this.operand instanceof Packed ? this.operand.format.kind : this.operand.dtype;
  }

  get bytes(): number {
    return this.operand.bytes;
  }

  /** Its numbers as they are stored; undefined where they are packed. */
  get tensor(): Tensor | undefined {
    return this.operand instanceof Packed ? undefined : this.operand;
  }

  /** x [n, in] → x @ W^T + bias + add, f32 [n, out]. Throws what `linear` throws. */
  product(x: Tensor, options: LinearOptions = {}): Tensor {
    return linear(x, this.operand, options);
  }

  /** y [n, out] → y @ W, f32 [n, in]: the way back through {@link product}. */
  productTransposed(y: Tensor, options: LinearOptions = {}): Tensor {
    const turned = this.operand.transpose();
    try {
      return linear(y, turned, options);
    } finally {
      turned.dispose();
    }
  }

  /** Rows by their ids u32 [n]: f32 [n, in]. */
  rows(ids: Tensor): Tensor {
    return gatherRows(this.operand, ids);
  }

  /** All numbers, [out, in]: a view of the stored ones, or f32 of packed ones. The caller disposes of it. */
  dense(): Tensor {
    return this.operand instanceof Packed ? unpack(this.operand) : this.operand.alias();
  }

  dispose(): void {
    this.operand.dispose();
  }

  [INSPECT](): string {
    return `Matrix ${this.format} ${showShape(this.shape)}`;
  }
}
