import { DTypeError, ShapeError } from "../../errors.ts";
import { defineKernel } from "../../tensor/kernel.ts";
import { apply, type Operation } from "../../tensor/operation.ts";
import { showShape } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { contiguous } from "./copy.ts";

const SIZE = 64;

const scatterKernel = defineKernel({
  name: "scatterRows",
  partly: { target: "source" },
  bindings: { source: "read", ids: "read", target: "write" },
  params: { count: "u32", rows: "u32", width: "u32" },
  code: () => `
@compute @workgroup_size(${SIZE})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) local: u32) {
  let i = flat_group(group, groups) * ${SIZE}u + local;
  if (i >= params.count) { return; }
  let row = ids_at(i / params.width);
  if (row < params.rows) { target_set(row * params.width + i % params.width, source_at(i)); }
}`,
});

/**
 * Overwrites rows of `target` in place: row `ids[i]` becomes row i of `source`. It appends to a KV cache whose sequences
 * lie apart. Only this and `copyRowsInto` change a tensor, and `device.write`.
 *
 * @param target f32 [rows, width], contiguous; the caller sees to it that nobody expects its old values
 * @param ids u32 [n], each at most once; ids out of range are passed over, since the host cannot check them
 * @param source f32 [n, width]
 * @throws ShapeError, DTypeError
 */
export function scatterRowsInto(target: Tensor, ids: Tensor, source: Tensor): void {
  const fits =
    target.rank === 2 &&
    target.contiguous &&
    source.rank === 2 &&
    source.dim(1) === target.dim(1) &&
    ids.rank === 1 &&
    ids.size === source.dim(0);
  if (!fits) {
    throw new ShapeError(
      `scatterRowsInto: expected a contiguous target [rows, width], ids [n] and a source [n, width], found ` +
        `${showShape(target.shape)}, ${showShape(ids.shape)} and ${showShape(source.shape)}`,
    );
  }
  if (target.dtype !== "f32" || source.dtype !== "f32" || ids.dtype !== "u32") {
    throw new DTypeError(
      `scatterRowsInto: expected f32, u32 ids and f32, found ${target.dtype}, ${ids.dtype} and ${source.dtype}`,
    );
  }
  apply(scatterOperation, [target, ids, source], {});
}

const scatterOperation: Operation<object> = {
  name: "scatterRowsInto",
  run([target, ids, source]) {
    scatterKernel.launch({
      tensors: { source: contiguous(source!), ids: contiguous(ids!), target: target! },
      params: { count: source!.size, rows: target!.dim(0), width: target!.dim(1) },
      constants: {},
      workgroups: Math.ceil(source!.size / SIZE),
    });
    return target!;
  },
};
