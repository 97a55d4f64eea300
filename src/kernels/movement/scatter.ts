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
  bindings: { source: "read", second: "read?", ids: "read", target: "write" },
  params: { count: "u32", size: "u32", rows: "u32", width: "u32" },
  code: ({ has }) => `
fn value_at(i: u32) -> f32 {
  ${has("second") ? "if (i >= params.size) { return second_at(i - params.size); }" : ""}
  return source_at(i);
}
@compute @workgroup_size(${SIZE})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) local: u32) {
  let i = flat_group(group, groups) * ${SIZE}u + local;
  if (i >= params.count) { return; }
  let is_second = i >= params.size;
  let row = ids_at(select(i, i - params.size, is_second) / params.width);
  if (row >= params.rows) { return; }
  target_set((row + select(0u, params.rows, is_second)) * params.width + i % params.width, value_at(i));
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
  scatter(target, ids, [source]);
}

/**
 * {@link scatterRowsInto} of two sources at once: `target` [2 * rows, width] is two tensors of `rows` rows, one under the other,
 * and each source [n, width] goes to the same rows of its own.
 *
 * @throws ShapeError, DTypeError
 */
export function scatterPairInto(target: Tensor, ids: Tensor, sources: readonly [Tensor, Tensor]): void {
  scatter(target, ids, sources);
}

function scatter(target: Tensor, ids: Tensor, sources: readonly Tensor[]): void {
  const fits =
    target.rank === 2 &&
    target.contiguous &&
    target.dim(0) % sources.length === 0 &&
    ids.rank === 1 &&
    sources.every(
      (source) => source.rank === 2 && source.dim(1) === target.dim(1) && ids.size === source.dim(0),
    );
  if (!fits) {
    throw new ShapeError(
      `scatterRowsInto: expected a contiguous target [rows, width], ids [n] and a source [n, width], found ` +
        `${[target, ids, ...sources].map((t) => showShape(t.shape)).join(", ")}`,
    );
  }
  if (target.dtype !== "f32" || sources.some(({ dtype }) => dtype !== "f32") || ids.dtype !== "u32") {
    throw new DTypeError(
      `scatterRowsInto: expected f32, u32 ids and f32, found ${[target, ids, ...sources].map((t) => t.dtype).join(", ")}`,
    );
  }
  apply(scatterOperation, [target, ids, ...sources], {});
}

/** Inputs: the target, ids, one source or two. */
const scatterOperation: Operation<object> = {
  name: "scatterRowsInto",
  run([target, ids, source, second]) {
    const count = source!.size * (second ? 2 : 1);
    scatterKernel.launch({
      tensors: {
        source: contiguous(source!),
        second: second && contiguous(second),
        ids: contiguous(ids!),
        target: target!,
      },
      params: {
        count,
        size: source!.size,
        rows: target!.dim(0) / (second ? 2 : 1),
        width: target!.dim(1),
      },
      constants: {},
      workgroups: Math.ceil(count / SIZE),
    });
    return target!;
  },
};
