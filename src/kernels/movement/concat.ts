import { ShapeError } from "../../errors.ts";
import type { DType } from "../../tensor/dtype.ts";
import { defineKernel } from "../../tensor/kernel.ts";
import { apply, type Operation } from "../../tensor/operation.ts";
import { normalizeAxis, sameShape, showShape, sizeOf } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { arithmeticDType } from "../elementwise/map.ts";
import { contiguous, place } from "./copy.ts";

const SIZE = 64;

/**
 * Places a 16-bit tensor along one axis of another. Two elements share a word, so every word of the target is visited
 * and those that hold elements of the source are updated.
 */
const placeHalvesKernel = defineKernel({
  name: "placeHalves",
  bindings: { x: "read", out: "update" },
  params: { words: "u32", count: "u32", inner: "u32", total: "u32", start: "u32", length: "u32" },
  code: () => `
fn merged(word: u32, half: u32) -> u32 {
  let i = 2u * word + half;
  let run = i / params.inner; // counts rows of the axis
  let at = run % params.total - params.start; // wraps when before the source
  if (i >= params.count || at >= params.length) { return out_bits(i); }
  return x_bits((run / params.total * params.length + at) * params.inner + i % params.inner);
}
@compute @workgroup_size(${SIZE})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) local: u32) {
  let word = flat_group(group, groups) * ${SIZE}u + local;
  if (word >= params.words) { return; }
  out_set_word(word, merged(word, 0u) | (merged(word, 1u) << 16u));
}`,
});

export const concatOperation: Operation<{ axis: number }> = {
  name: "concat",
  run(inputs, { axis }, device) {
    const first = inputs[0]!;
    for (const { shape, rank } of inputs) {
      if (rank !== first.rank || !sameShape(shape.with(axis, 0), first.shape.with(axis, 0))) {
        const shapes = inputs.map((x) => showShape(x.shape)).join(", ");
        throw new ShapeError(`concat: expected shapes equal but for axis ${axis}, found ${shapes}`);
      }
    }
    const dtypes = [...new Set(inputs.map((x) => x.dtype))];
    const dtype: DType = dtypes.length === 1 ? dtypes[0]! : arithmeticDType("concat", dtypes);
    const total = inputs.reduce((sum, x) => sum + x.dim(axis), 0);
    const out = device.empty(first.shape.with(axis, total), dtype, "concat");
    const inner = sizeOf(first.shape.slice(axis + 1));
    let from = 0;
    for (const x of inputs) {
      const length = x.dim(axis);
      if (x.size === 0) continue;
      if (dtype === "f16" || dtype === "bf16") {
        const words = Math.ceil(out.size / 2);
        placeHalvesKernel.launch({
          tensors: { x: contiguous(x), out },
          params: { words, count: out.size, inner, total, start: from, length },
          constants: {},
          workgroups: Math.ceil(words / SIZE),
        });
      } else {
        place(out.slice(axis, from, from + length), x);
      }
      from += length;
    }
    return out;
  },
};

/**
 * Joins tensors along an existing axis. Sizes must agree along the others. The dtype is kept where all have the same;
 * floats of several widths become f32.
 *
 * @throws ShapeError, DTypeError (floats with integers)
 */
export function concat(tensors: readonly Tensor[], axis = 0): Tensor {
  if (tensors.length === 0) throw new ShapeError("concat: expected at least one tensor, found none");
  return apply(concatOperation, tensors, { axis: normalizeAxis("concat", axis, tensors[0]!.rank) });
}

/** Joins tensors of equal shape along a new axis. @throws ShapeError, DTypeError */
export function stack(tensors: readonly Tensor[], axis = 0): Tensor {
  if (tensors.length === 0) throw new ShapeError("stack: expected at least one tensor, found none");
  const at = normalizeAxis("stack", axis, tensors[0]!.rank + 1);
  return tensors[0]!.device.scope(() =>
    concat(
      tensors.map((x) => {
        const whole = contiguous(x);
        return whole.reshape([...x.shape.slice(0, at), 1, ...x.shape.slice(at)]);
      }),
      at,
    ),
  );
}
