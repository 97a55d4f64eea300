import { DTypeError, ShapeError } from "../../errors.ts";
import { isFloat } from "../../tensor/dtype.ts";
import { defineKernel, type Variant } from "../../tensor/kernel.ts";
import { apply, type Operation } from "../../tensor/operation.ts";
import { sameShape, showShape } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { collapse, layoutFields, layoutValues, locate } from "../elementwise/strided.ts";

const SIZE = 64;

const kernel = defineKernel({
  name: "accumulate",
  bindings: { x: "read", out: "update" },
  params: { count: "u32", ...layoutFields(["x", "out"]) },
  code: ({ constants }: Variant<"x" | "out", { rank: number }>) => `
@compute @workgroup_size(${SIZE})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) local: u32) {
  let i = flat_group(group, groups) * ${SIZE}u + local;
  if (i >= params.count) { return; }
  ${locate(constants.rank, ["x", "out"])}
  out_set(out_i, out_at(out_i) + x_at(x_i));
}`,
});

const accumulateOperation: Operation<object> = {
  name: "accumulateInto",
  run([target, source]) {
    const layout = collapse(target!.shape, [source!.strides, target!.strides]);
    kernel.launch({
      tensors: { x: source!, out: target! },
      params: { count: target!.size, ...layoutValues(["x", "out"], layout) },
      constants: { rank: layout.shape.length },
      workgroups: Math.ceil(target!.size / SIZE),
    });
    return target!;
  },
};

/**
 * Adds `source` to `target` in place: sums that grow from several sides, such as gradients.
 *
 * @param target f32, a view of any strides in which no element comes twice
 * @param source any float dtype, of the same shape and another buffer
 * @throws ShapeError, DTypeError
 */
export function accumulateInto(target: Tensor, source: Tensor): void {
  if (!sameShape(target.shape, source.shape)) {
    throw new ShapeError(
      `accumulateInto: expected a source ${showShape(target.shape)}, found ${showShape(source.shape)}`,
    );
  }
  if (target.dtype !== "f32" || !isFloat(source.dtype)) {
    throw new DTypeError(
      `accumulateInto: expected an f32 target and a float source, found ${target.dtype} and ${source.dtype}`,
    );
  }
  if (source.storage === target.storage) {
    throw new ShapeError("accumulateInto: source and target share a buffer; copy(source) first");
  }
  if (target.shape.some((n, i) => n > 1 && target.strides[i] === 0)) {
    throw new ShapeError(`accumulateInto: the target ${target} repeats elements; sum the source first`);
  }
  apply(accumulateOperation, [target, source], {});
}
