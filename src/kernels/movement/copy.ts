import { DTypeError, ShapeError } from "../../errors.ts";
import type { DType } from "../../tensor/dtype.ts";
import { defineKernel, type Variant } from "../../tensor/kernel.ts";
import { apply, type Operation } from "../../tensor/operation.ts";
import { sameShape } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { IS_NAN, ROUND_TO_16_BITS } from "../elementwise/float-bits.ts";
import { defineMap, type WideDType } from "../elementwise/map.ts";
import { collapse, layoutFields, layoutValues, locate } from "../elementwise/strided.ts";

const SIZE = 64;

/** Writes 16-bit elements two to a word: raw bits, or floats (and integers, by way of f32) rounded to even. */
const packKernel = defineKernel({
  name: "pack",
  bindings: { x: "read", out: "write" },
  params: { words: "u32", count: "u32", ...layoutFields(["x"]) },
  code: ({ constants }: Variant<"x" | "out", { rank: number; to: "bits" | "f16" | "bf16" }>) => {
    const bits = { bits: "x_bits(x_i)", f16: "f16_from(f32(x_at(x_i)))", bf16: "bf16_from(f32(x_at(x_i)))" };
    return `
${ROUND_TO_16_BITS}
fn half_at(i: u32) -> u32 {
  if (i >= params.count) { return 0u; }
  ${locate(constants.rank, ["x"])}
  return ${bits[constants.to]};
}
@compute @workgroup_size(${SIZE})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) local: u32) {
  let word = flat_group(group, groups) * ${SIZE}u + local;
  if (word >= params.words) { return; }
  out_set_word(word, half_at(2u * word) | (half_at(2u * word + 1u) << 16u));
}`;
  },
});

function pack(x: Tensor, dtype: "f16" | "bf16"): Tensor {
  const out = x.device.empty(x.shape, dtype, "cast");
  packInto(out, x);
  return out;
}

function packInto(out: Tensor, x: Tensor): void {
  const dtype = out.dtype as "f16" | "bf16";
  const layout = collapse(x.shape, [x.strides]);
  const words = Math.ceil(x.size / 2);
  packKernel.launch({
    tensors: { x, out },
    params: { words, count: x.size, ...layoutValues(["x"], layout) },
    constants: { rank: layout.shape.length, to: x.dtype === dtype ? "bits" : dtype },
    workgroups: Math.ceil(words / SIZE),
  });
}

const roundOperation: Operation<object> = {
  name: "roundInto",
  run([target, source]) {
    packInto(target!, source!);
    return target!;
  },
};

/**
 * Writes the elements of `source` over those of `target`, in place and rounded to its dtype: weights that are trained in more
 * bits than they are stored in.
 *
 * @param target f16 or bf16, contiguous, of an even number of elements from an even offset (two share a word)
 * @param source any float dtype, of the same number of elements
 * @throws ShapeError, DTypeError
 */
export function roundInto(target: Tensor, source: Tensor): void {
  if (target.dtype !== "f16" && target.dtype !== "bf16") {
    throw new DTypeError(`roundInto: expected an f16 or bf16 target, found ${target.dtype}`);
  }
  const whole =
    target.offset % 2 === 0 && (target.size % 2 === 0 || target.size * 2 + 2 > target.storage.used);
  if (!target.contiguous || !whole || !sameShape(target.shape, source.shape)) {
    throw new ShapeError(
      `roundInto: expected a contiguous target of whole words and a source of its shape, found ${target} and ${source}`,
    );
  }
  apply(roundOperation, [target, source], {});
}

const widenMap = defineMap<`to ${WideDType}`>("widen", {
  expression(kind, from) {
    const to = kind.slice(3);
    if (to === from) return "a";
    if (to === "f32") return "F(a)";
    if (from !== "f32") return to === "i32" ? "bitcast<I>(a)" : "bitcast<U>(a)";
    return to === "i32" ? "to_signed(a)" : "to_unsigned(a)";
  },
  // WGSL leaves NaN open, and older compilers also values that the integers do not hold.
  helpers: `${IS_NAN}
fn to_signed(x: F) -> I {
  let inside = I(clamp(x, F(-2147483648.0), F(2147483520.0)));
  return select(select(inside, I(2147483647), x >= F(2147483648.0)), I(0), is_nan(x));
}
fn to_unsigned(x: F) -> U {
  let inside = U(clamp(x, F(0.0), F(4294967040.0)));
  return select(select(inside, U(4294967295u), x >= F(4294967296.0)), U(0u), is_nan(x));
}`,
});

export const castOperation: Operation<{ dtype: DType }> = {
  name: "cast",
  run([x], { dtype }, device) {
    if (dtype === "f16" || dtype === "bf16") return pack(x!, dtype);
    return widenMap({ kind: `to ${dtype}`, operands: [x!], numbers: dtype, result: dtype, device });
  },
};

/**
 * The elements as another dtype, in a new contiguous tensor. Floats are rounded to the nearest (ties to even; too large
 * for f16 gives infinity); floats become integers by truncation, out-of-range ones the nearest integer there is, NaN 0;
 * i32 and u32 share their bits. The same dtype gives a copy.
 */
export function cast<D extends DType>(x: Tensor, dtype: D): Tensor<D> {
  return apply(castOperation, [x], { dtype }) as Tensor<D>;
}

/** The elements, bit for bit, in a new contiguous tensor. */
export function copy<D extends DType>(x: Tensor<D>): Tensor<D> {
  return cast(x, x.dtype);
}

/** `x` itself when its elements lie in row-major order, else a contiguous copy, bit for bit. */
export function contiguous<D extends DType>(x: Tensor<D>): Tensor<D> {
  return x.contiguous ? x : copy(x);
}

const placeKernel = defineKernel({
  name: "place",
  bindings: { x: "read", out: "write" },
  params: { count: "u32", ...layoutFields(["x", "out"]) },
  code: ({ constants }: Variant<"x" | "out", { rank: number }>) => `
@compute @workgroup_size(${SIZE})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) local: u32) {
  let i = flat_group(group, groups) * ${SIZE}u + local;
  if (i >= params.count) { return; }
  ${locate(constants.rank, ["x", "out"])}
  out_set(out_i, x_at(x_i));
}`,
});

/**
 * Copies `source` over `target`, a view of the same shape and a 32-bit dtype, in place; f16 and bf16 sources widen.
 * The two may not share a buffer.
 */
export function place(target: Tensor, source: Tensor): void {
  const layout = collapse(target.shape, [source.strides, target.strides]);
  placeKernel.launch({
    tensors: { x: source, out: target },
    params: { count: target.size, ...layoutValues(["x", "out"], layout) },
    constants: { rank: layout.shape.length },
    workgroups: Math.ceil(target.size / SIZE),
  });
}
