import type { Operand } from "../../tensor/packed/packed.ts";
import { sizeOf } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { ParameterType } from "../../tensor/wgsl.ts";
import type { ActivationKind } from "../elementwise/activation.ts";
import type { Epilogue } from "./epilogue.ts";

/** `out = a @ b + bias + residual`, with leading dimensions already broadcast: what every matmul kernel computes. */
export interface Product {
  /** [...batch, rows, depth] */
  a: Tensor;
  /** [...batch, depth, columns]; a packed one without batch dimensions. */
  b: Operand;
  /** [columns], added to every row. */
  bias: Tensor | undefined;
  /** [rows, columns]; only without batch dimensions. */
  residual: Tensor | undefined;
  /** f32 [...batch, rows, columns], contiguous; with `parts`, one matrix [rows, part] after the other. */
  out: Tensor;
  /** Columns of each tensor that the result is shared out to; only without batch dimensions and residual. */
  parts?: readonly number[] | undefined;
  /**
   * Each column of the first half of b and its counterpart in the second give one of the result: act(gate) * up. Only without
   * batch dimensions, residual and parts.
   */
  gate?: ActivationKind | undefined;
}

/** What the kernel does with the sums of a product. */
export function epilogueOf({ parts, gate }: Product): Epilogue {
  return { parts: parts?.length ?? 1, gate: gate ?? "" };
}

/** Parameters that all matmul kernels share; strides in elements. */
export const PRODUCT_PARAMS = {
  batches: "u32",
  rows: "u32",
  columns: "u32",
  depth: "u32",
  a_row: "u32",
  a_depth: "u32",
  b_depth: "u32",
  b_column: "u32",
  bias_column: "u32",
  residual_row: "u32",
  residual_column: "u32",
  batch1: "u32",
  batch2: "u32",
  batch3: "u32",
  a_batch0: "u32",
  a_batch1: "u32",
  a_batch2: "u32",
  a_batch3: "u32",
  b_batch0: "u32",
  b_batch1: "u32",
  b_batch2: "u32",
  b_batch3: "u32",
  part1: "u32",
  part2: "u32",
  gate_to_up: "u32",
} as const satisfies Record<string, ParameterType>;

/** Most leading dimensions that the parameters can describe (a tensor has at most six in all). */
const BATCH_RANK = 4;

export type ProductParams = Record<keyof typeof PRODUCT_PARAMS, number>;

export function productParams({ a, b, bias, residual, out, parts = [], gate }: Product): ProductParams {
  const columns = b.dim(-1) / (gate ? 2 : 1);
  const part1 = parts[0] ?? columns;
  const batched = parts.length > 1 ? [] : out.shape.slice(0, -2);
  const padding = new Array<number>(BATCH_RANK - batched.length);
  const [, batch1, batch2, batch3] = [...padding.fill(1), ...batched];
  const [a0, a1, a2, a3] = [...padding.fill(0), ...a.strides.slice(0, -2)];
  const [b0, b1, b2, b3] = [...padding.fill(0), ...b.strides.slice(0, -2)];
  return {
    batches: sizeOf(batched),
    rows: a.dim(-2),
    columns,
    depth: a.dim(-1),
    a_row: a.strides.at(-2)!,
    a_depth: a.strides.at(-1)!,
    b_depth: b.strides.at(-2)!,
    b_column: b.strides.at(-1)!,
    bias_column: bias?.strides[0] ?? 0,
    residual_row: residual?.strides[0] ?? 0,
    residual_column: residual?.strides[1] ?? 0,
    batch1: batch1!,
    batch2: batch2!,
    batch3: batch3!,
    a_batch0: a0!,
    a_batch1: a1!,
    a_batch2: a2!,
    a_batch3: a3!,
    b_batch0: b0!,
    b_batch1: b1!,
    b_batch2: b2!,
    b_batch3: b3!,
    // Columns where the second part begins, and the third.
    part1,
    part2: part1 + (parts[1] ?? 0),
    gate_to_up: columns * b.strides.at(-1)!,
  };
}

/**
 * Whether groups of four neighbours along `axis` can be loaded whole: they are adjacent in memory, and every such
 * group starts at a multiple of four elements.
 */
export function loadsByFour(
  tensor: Pick<Tensor, "shape" | "strides" | "offset" | "rank">,
  axis: number,
): boolean {
  const along = axis < 0 ? axis + tensor.rank : axis;
  return (
    tensor.shape[along]! % 4 === 0 &&
    tensor.offset % 4 === 0 &&
    tensor.strides.every((stride, i) =>
      i === along ? stride === 1 : stride % 4 === 0 || tensor.shape[i] === 1,
    )
  );
}

/** WGSL: where batch `batch` of a and b starts, in elements. Without batch dimensions it is the constant 0. */
export function batchOffsets(batched: boolean): string {
  if (!batched) {
    return /* wgsl */ `
fn a_batch(batch: u32) -> u32 { return 0u; }
fn b_batch(batch: u32) -> u32 { return 0u; }`;
  }
  const offset = (x: string) =>
    `dot(batch_index(batch), vec4u(params.${x}_batch0, params.${x}_batch1, params.${x}_batch2, params.${x}_batch3))`;
  return /* wgsl */ `
fn batch_index(batch: u32) -> vec4u {
  let i2 = batch / params.batch3;
  let i1 = i2 / params.batch2;
  return vec4u(i1 / params.batch1, i1 % params.batch1, i2 % params.batch2, batch % params.batch3);
}
fn a_batch(batch: u32) -> u32 { return ${offset("a")}; }
fn b_batch(batch: u32) -> u32 { return ${offset("b")}; }`;
}
