import { defineKernel } from "../../tensor/kernel.ts";
import { apply, type Operation } from "../../tensor/operation.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { contiguous } from "../movement/copy.ts";

const SIZE = 64;

/** One invocation a product: those of the elements before, in place, and then of those after. */
const kernel = defineKernel({
  name: "productBackward",
  bindings: { x: "read", dy: "read", out: "update" },
  params: { rows: "u32", n: "u32" },
  code: () => `
@compute @workgroup_size(${SIZE})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) local: u32) {
  let row = flat_group(group, groups) * ${SIZE}u + local;
  if (row >= params.rows) { return; }
  let start = row * params.n;
  var before = 1.0;
  for (var i = start; i < start + params.n; i++) {
    out_set(i, before);
    before *= x_at(i);
  }
  var after = dy_at(row);
  for (var i = start + params.n; i > start; i--) {
    out_set(i - 1u, out_at(i - 1u) * after);
    after *= x_at(i - 1u);
  }
}`,
});

const productBackwardOperation: Operation<{ axes: readonly number[] }> = {
  name: "productBackward",
  run([x, dy], { axes }, device) {
    const kept = x!.shape.map((_, i) => i).filter((i) => !axes.includes(i));
    const order = [...kept, ...axes];
    const last = contiguous(x!.permute(order)); // [...kept, ...reduced]
    const out = device.empty(last.shape, "f32", "productBackward");
    const cotangent = contiguous(dy!);
    const rows = cotangent.size;
    kernel.launch({
      tensors: { x: last, dy: cotangent, out },
      params: { rows, n: x!.size / Math.max(1, rows) },
      constants: {},
      workgroups: Math.ceil(rows / SIZE),
    });
    return out.permute(order.map((_, axis) => order.indexOf(axis)));
  },
};

/**
 * The gradient of the product of x along `axes` (ascending), from the cotangent dy of the product -> f32 of x's shape, a view. Each
 * element gets the product of all others, without a division: zeros are as good as other numbers.
 */
export function productBackward(x: Tensor, dy: Tensor, axes: readonly number[]): Tensor {
  return apply(productBackwardOperation, [x, dy], { axes });
}
