import type { Matrix } from "../../../kernels/matmul/matrix.ts";
import type { Device } from "../../../tensor/device.ts";
import type { Shape } from "../../../tensor/shape.ts";
import type { Tensor } from "../../../tensor/tensor.ts";
import type { Linear } from "./linear-layer.ts";
import type { Quantise } from "./quantise.ts";
import type { RowPart } from "./row-parts.ts";
import type { LoadProgress } from "./upload.ts";

export type { LoadProgress };

export type LinearShape = readonly [out: number, width: number];

export interface LinearOptions {
  readonly bias?: boolean;
  /** Whether the file has the weight as [in, out] (GPT-2's Conv1D). */
  readonly transposed?: boolean;
}

/** How a family gets at its tensors: by name and expected shape. */
export interface Weights {
  readonly device: Device;
  /** True when the checkpoint has a tensor of that name. */
  has(name: string): boolean;
  tensor(name: string, shape: Shape): Promise<Tensor>;
  /** `<name>.weight` [vocab, width], of which rows are read by their ids. */
  embedding(name: string, shape: readonly [vocab: number, width: number]): Promise<Matrix>;
  /** Matrices [rows, width] one under the other, which have to be of one dtype. */
  stacked(parts: readonly { readonly name: string; readonly rows: number }[], width: number): Promise<Tensor>;
  /** The same elements under another shape. */
  reshape(tensor: Tensor, shape: Shape): Tensor;
  /** Its rows from `start` on. */
  rowsFrom(tensor: Tensor, start: number): Tensor;
  /** `<name>.weight` [out, in] and, if asked for, `<name>.bias` [out]. */
  linear(name: string, shape: LinearShape, options?: boolean | LinearOptions): Promise<Linear>;
  /** The layers that one matrix holds, each with the rows that its part takes; `shape` is that of them all. */
  fused<const Parts extends readonly RowPart[]>(
    name: string,
    shape: LinearShape,
    parts: Parts,
    options?: LinearOptions,
  ): Promise<{ [I in keyof Parts]: Linear }>;
  /**
   * Embedding and output matrix [vocab, width] of a config that ties them. As in transformers 5 one that is missing is the
   * other, and where the file has both and they differ, they are not tied.
   */
  tied(
    embedding: string,
    head: string,
    shape: readonly [vocab: number, width: number],
  ): Promise<{ embedding: Matrix; unembedding: Linear }>;
  /** Modules and tensors that the file may have and this model has no use for; others inside of what it reads are refused. */
  skip(...modules: string[]): void;
}

export interface WeightOptions {
  /**
   * Whether adapters become part of the weights: `W + scale · B A` is computed in f32 and stored in the weight's dtype.
   * Otherwise, and in layers that are kept in few bits, each layer adds what they make of its input, in f32. Default true.
   */
  merge?: boolean;
  /**
   * Weights to keep in 4 or 8 bits on the device, quantised as they are read; kernels unpack them as they go. Matrices that the
   * checkpoint has quantised stay as they are in any case.
   *
   * @example await loadModel("xpatch:vlm", { device, quantise: { linear: "nf4", modules: { "layers.0": "int8" } } });
   */
  quantise?: Quantise;
  /** Called as weights arrive. */
  onProgress?: (progress: LoadProgress) => void;
}

/** Options, of which the bias may stand alone. */
export function linearOptions(options: boolean | LinearOptions): LinearOptions {
  return typeof options === "boolean" ? { bias: options } : options;
}

/** The shape that the file has for a weight [out, in]. */
export function asStored([out, width]: LinearShape, transposed = false): Shape {
  return transposed ? [width, out] : [out, width];
}
