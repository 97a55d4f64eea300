import { DTypeError, ShapeError } from "../../errors.ts";
import type { Device } from "../../tensor/device.ts";
import { isFloat } from "../../tensor/dtype.ts";
import { defineKernel, type Variant } from "../../tensor/kernel.ts";
import { apply, type Operation } from "../../tensor/operation.ts";
import { normalizeAxis, showShape, sizeOf } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { greater, less, select } from "../elementwise/compare.ts";
import { abs, div, mul, sqrt, square, sub } from "../elementwise/elementwise.ts";
import { IS_NAN, orderKey } from "../elementwise/float-bits.ts";
import { arithmeticDType } from "../elementwise/map.ts";
import { collapse, type Layout, layoutFields, layoutValues, locate } from "../elementwise/strided.ts";

export type ReduceKind = "sum" | "product" | "mean" | "max" | "min" | "argmax" | "argmin";

export interface ReduceAttributes {
  kind: ReduceKind;
  /** Reduced axes, ascending. */
  axes: readonly number[];
  keepDims: boolean;
  /** For argmax and argmin of floats: u32 [2, …], the indices, and then the bits of the elements there as f32. */
  withValues?: boolean;
}

const SIZE = 64;
/** Elements that one invocation adds up in a row: bounds rounding error and gives parallel work. */
const RUN = 1024;

type Constants = {
  kind: ReduceKind;
  outerRank: number;
  innerRank: number;
  cooperative: boolean;
  withValues: boolean;
};

/**
 * out[o, c] = the reduction of x[o, c * chunk … (c + 1) * chunk - 1] for a nest `o` of kept and a nest `r` of reduced
 * dimensions. For argmax and argmin the result is the index, and `ids` are the candidates of an earlier pass.
 */
const reduceKernel = defineKernel({
  name: "reduce",
  bindings: { x: "read", ids: "read?", out: "write" },
  params: {
    slots: "u32",
    n: "u32",
    chunk: "u32",
    chunks: "u32",
    divisor: "f32",
    ...layoutFields(["outer"], "o"),
    ...layoutFields(["inner"], "r"),
  },
  code: ({ constants, has, element }: Variant<"x" | "ids" | "out", Constants>) => {
    const { kind, outerRank, innerRank, cooperative, withValues } = constants;
    const arg = kind === "argmax" || kind === "argmin";
    const type = arg ? "vec2u" : element("x");
    const summing = kind === "sum" || kind === "mean" || kind === "product";
    const float = element("x") === "f32";
    const extreme = kind === "max" || kind === "min";
    const combined = {
      sum: "a + b",
      mean: "a + b",
      product: "a * b",
      max: "max(a, b)",
      min: "min(a, b)",
      argmax: "select(a, b, b.x > a.x || (b.x == a.x && b.y < a.y))",
      argmin: "select(a, b, b.x > a.x || (b.x == a.x && b.y < a.y))",
    }[kind];
    return `
alias F = f32; alias U = u32; alias Bool = bool;
${IS_NAN}
${orderKey(element("x"), kind !== "argmin")}
fn combine(a: ${type}, b: ${type}) -> ${type} {
  ${extreme && float ? "if (is_nan(a)) { return a; }\n  if (is_nan(b)) { return b; }" : ""}
  return ${combined};
}
fn element(o: u32, r: u32) -> ${type} {
  let at = ${has("ids") ? "ids_at(o * params.n + r)" : "r"};
  ${locate(outerRank, ["outer"], "o", "o")}
  ${locate(innerRank, ["inner"], "at", "r")}
  let value = x_at(outer_i + inner_i);
  return ${arg ? "vec2u(order_key(value), at)" : "value"};
}
fn reduced(slot: u32, first: u32, step: u32) -> ${type} {
  let o = slot / params.chunks;
  let start = slot % params.chunks * params.chunk;
  let end = min(start + params.chunk, params.n);
  var acc = ${summing ? `${type}(${kind === "product" ? 1 : 0})` : "element(o, min(start + first, end - 1u))"};
  for (var r = start + first; r < end; r += step) { acc = combine(acc, element(o, r)); }
  return acc;
}
fn finish(slot: u32, acc: ${type}) {
  out_set(slot, ${arg ? "acc.y" : kind === "mean" ? "acc / params.divisor" : "acc"});
  ${
    withValues
      ? `let o = slot;
  let at = acc.y;
  ${locate(outerRank, ["outer"], "o", "o")}
  ${locate(innerRank, ["inner"], "at", "r")}
  out_set(params.slots + slot, bitcast<u32>(x_at(outer_i + inner_i)));`
      : ""
  }
}
${cooperative ? `var<workgroup> partial: array<${type}, ${SIZE}>;` : ""}
@compute @workgroup_size(${SIZE})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) local: u32) {
${
  cooperative
    ? `
  let slot = flat_group(group, groups);
  if (slot >= params.slots) { return; }
  partial[local] = reduced(slot, local, ${SIZE}u);
  for (var half = ${SIZE / 2}u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (local < half) { partial[local] = combine(partial[local], partial[local + half]); }
  }
  if (local == 0u) { finish(slot, partial[0]); }`
    : `
  let slot = flat_group(group, groups) * ${SIZE}u + local;
  if (slot < params.slots) { finish(slot, reduced(slot, 0u, 1u)); }`
}
}`;
  },
});

interface Reduction {
  kind: ReduceKind;
  x: Tensor;
  ids?: Tensor;
  outer: Layout;
  inner: Layout;
  slots: number;
  n: number;
  chunks: number;
  divisor: number;
  out: Tensor;
  withValues?: boolean;
}

function launch(reduction: Reduction): void {
  const { kind, x, ids, outer, inner, slots, n, chunks, divisor, out, withValues = false } = reduction;
  const cooperative = isCooperative(x.device, outer, n);
  reduceKernel.launch({
    tensors: { x, ids, out },
    params: {
      slots,
      n,
      chunk: Math.ceil(n / chunks),
      chunks,
      divisor,
      ...layoutValues(["outer"], outer, "o"),
      ...layoutValues(["inner"], inner, "r"),
    },
    constants: {
      kind,
      outerRank: outer.shape.length,
      innerRank: inner.shape.length,
      cooperative,
      withValues,
    },
    workgroups: cooperative ? slots : Math.ceil(slots / SIZE),
  });
}

/** On GPUs a workgroup shares one result, unless neighbouring results already read neighbouring elements. */
function isCooperative(device: Device, outer: Layout, n: number): boolean {
  const coalesced = sizeOf(outer.shape) >= 1024 && outer.strides[0]!.at(-1) === 1;
  return device.info.kernels === "workgroup" && n >= SIZE && !coalesced;
}

export const reduceOperation: Operation<ReduceAttributes> = {
  name: "reduce",
  run([input], { kind, axes, keepDims, withValues = false }, device) {
    const x = input!;
    const dtype = arithmeticDType(kind, [x.dtype]);
    if (kind === "mean" && dtype !== "f32") {
      throw new DTypeError(`mean: expected floats, found ${dtype}; cast the tensor first`);
    }
    const kept = x.shape.map((_, i) => i).filter((i) => !axes.includes(i));
    const pick = (indices: readonly number[], of: readonly number[]) => indices.map((i) => of[i]!);
    const outer = collapse(pick(kept, x.shape), [pick(kept, x.strides)]);
    const inner = collapse(pick(axes, x.shape), [pick(axes, x.strides)]);
    const n = sizeOf(pick(axes, x.shape));
    const slots = sizeOf(pick(kept, x.shape));
    if (n === 0 && slots > 0 && kind !== "sum" && kind !== "product") {
      throw new ShapeError(
        `${kind}: no elements to reduce in ${showShape(x.shape)} along axes ${showShape(axes)}`,
      );
    }
    const shape = keepDims ? x.shape.map((size, i) => (axes.includes(i) ? 1 : size)) : pick(kept, x.shape);
    const arg = kind === "argmax" || kind === "argmin";
    const result = arg ? "u32" : dtype;
    const out = device.empty(withValues ? [2, ...shape] : shape, result, kind);
    const run = RUN * (isCooperative(device, outer, n) ? 8 : 1);
    const wanted = Math.min(RUN, Math.max(1, Math.ceil(n / run)));
    const chunks = wanted === 1 ? 1 : Math.ceil(n / Math.ceil(n / wanted)); // none is empty
    const whole: Reduction = { kind, x, outer, inner, slots, n, chunks: 1, divisor: n, out, withValues };
    if (chunks === 1) {
      launch(whole);
      return out;
    }
    const partial = device.empty([slots, chunks], result, kind);
    const first = kind === "mean" ? "sum" : kind;
    launch({ ...whole, kind: first, slots: slots * chunks, chunks, out: partial, withValues: false });
    if (arg) launch({ ...whole, ids: partial, n: chunks });
    else {
      const rows = { shape: [slots], strides: [[chunks]] };
      const row = { shape: [chunks], strides: [[1]] };
      launch({ ...whole, x: partial, outer: rows, inner: row, n: chunks });
    }
    return out;
  },
};

/** Shape of a reduction's result. */
export interface ReduceOptions {
  /** Leave reduced axes in the shape, with size 1. Default false. */
  keepDims?: boolean;
}

/** One axis, several, or all of them where absent. Negative axes count from the end. */
export type Axes = number | readonly number[];

function reduce(
  kind: ReduceKind,
  x: Tensor,
  axes: Axes | undefined,
  { keepDims = false }: ReduceOptions,
): Tensor {
  const named = axes === undefined ? x.shape.map((_, i) => i) : typeof axes === "number" ? [axes] : axes;
  const sorted = named.map((axis) => normalizeAxis(kind, axis, x.rank)).sort((a, b) => a - b);
  if (new Set(sorted).size < sorted.length)
    throw new ShapeError(`${kind}: an axis is named twice in ${showShape(named)}`);
  return apply(reduceOperation, [x], { kind, axes: sorted, keepDims });
}

/*
 * Reductions take tensors of any shape, strides and dtype. Floats of any width give f32 and accumulate in f32; integers
 * keep their dtype and wrap. An infinity or NaN among the elements does as IEEE arithmetic has it. All throw ShapeError
 * for axes that do not exist, and all but sum and product for a reduction over no elements.
 */

/** Sum along `axes`; 0 for no elements. */
export function sum(x: Tensor, axes?: Axes, options: ReduceOptions = {}): Tensor {
  return reduce("sum", x, axes, options);
}

/** Product along `axes`; 1 for no elements. */
export function product(x: Tensor, axes?: Axes, options: ReduceOptions = {}): Tensor {
  return reduce("product", x, axes, options);
}

/** Arithmetic mean along `axes`. @throws DTypeError for integers */
export function mean(x: Tensor, axes?: Axes, options: ReduceOptions = {}): Tensor {
  return reduce("mean", x, axes, options);
}

/** Greatest element along `axes`; NaN if there is one. */
export function max(x: Tensor, axes?: Axes, options: ReduceOptions = {}): Tensor {
  return reduce("max", x, axes, options);
}

/** Least element along `axes`; NaN if there is one. */
export function min(x: Tensor, axes?: Axes, options: ReduceOptions = {}): Tensor {
  return reduce("min", x, axes, options);
}

/**
 * Index of the greatest element along `axis`, the first of equals; NaN counts as greatest. Without an axis: of
 * all elements in row-major order.
 */
export function argmax(x: Tensor, axis?: number, options: ReduceOptions = {}): Tensor<"u32"> {
  return reduce("argmax", x, axis, options) as Tensor<"u32">;
}

/**
 * {@link argmax} of floats along `axis`, with the elements there: u32 [2, …], the indices, and then the elements' bits as f32.
 * One tensor, so that the host waits for one read.
 *
 * @throws DTypeError for integers
 */
export function argmaxWithValues(x: Tensor, axis: number): Tensor<"u32"> {
  if (!isFloat(x.dtype)) throw new DTypeError(`argmaxWithValues: expected floats, found ${x.dtype}`);
  const attributes = {
    kind: "argmax",
    axes: [normalizeAxis("argmax", axis, x.rank)],
    keepDims: false,
  } as const;
  return apply(reduceOperation, [x], { ...attributes, withValues: true }) as Tensor<"u32">;
}

/** Index of the least element along `axis`, the first of equals; NaN counts as least. */
export function argmin(x: Tensor, axis?: number, options: ReduceOptions = {}): Tensor<"u32"> {
  return reduce("argmin", x, axis, options) as Tensor<"u32">;
}

/**
 * Mean squared distance from the mean along `axes`, in two passes over the elements. With `correction: 1` the sum is
 * divided by one less than the number of elements.
 *
 * @throws DTypeError for integers
 */
export function variance(
  x: Tensor,
  axes?: Axes,
  { keepDims = false, correction = 0 }: ReduceOptions & { correction?: number } = {},
): Tensor {
  return x.device.scope(() => {
    const deviations = sub(x, mean(x, axes, { keepDims: true }));
    const spread = mean(square(deviations), axes, { keepDims });
    if (correction === 0) return spread;
    const n = x.size / Math.max(1, spread.size);
    return mul(spread, n / (n - correction));
  });
}

/** Euclidean length along `axes`. What is squared has been divided by the largest magnitude, so it stays in range. */
export function norm(x: Tensor, axes?: Axes, options: ReduceOptions = {}): Tensor {
  return x.device.scope(() => {
    if (x.size === 0 || !isFloat(x.dtype)) return sqrt(sum(square(x), axes, options));
    const size = max(abs(x), axes, { keepDims: true });
    const usable = mul(greater(size, 0), less(size, Number.POSITIVE_INFINITY));
    const scale = select(usable, size, 1); // 0, infinity and NaN take care of themselves
    const length = sqrt(sum(square(div(x, scale)), axes, { keepDims: true }));
    const scaled = mul(length, scale);
    const reduced = [axes ?? [...x.shape.keys()]].flat().map((axis) => normalizeAxis("norm", axis, x.rank));
    return options.keepDims ? scaled : scaled.reshape(x.shape.filter((_, i) => !reduced.includes(i)));
  });
}
