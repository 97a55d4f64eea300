import { defineKernel } from "../../tensor/kernel.ts";
import { apply, type Operation } from "../../tensor/operation.ts";
import type { Packed } from "../../tensor/packed/packed.ts";
import { type Flat, flat, packedFrom } from "../../tensor/packed/packed-inputs.ts";
import type { Tensor } from "../../tensor/tensor.ts";

const kernel = defineKernel({
  name: "unpack",
  bindings: { x: "values", out: "write" },
  params: { count: "u32", columns: "u32", row_step: "u32", column_step: "u32" },
  code: () => /* wgsl */ `
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) local: u32) {
  let i = flat_group(group, groups) * 64u + local;
  if (i >= params.count) { return; }
  out_set(i, x_at(i / params.columns * params.row_step + i % params.columns * params.column_step));
}`,
});

/** Inputs: the parts of a packed matrix. */
export const unpackOperation: Operation<{ packed: Flat }> = {
  name: "unpack",
  run(inputs, { packed }, device) {
    const x = packedFrom(packed, inputs);
    const out = device.empty(x.shape, "f32", "unpack");
    kernel.launch({
      tensors: { x, out },
      params: { count: out.size, columns: x.shape[1], row_step: x.strides[0], column_step: x.strides[1] },
      constants: {},
      workgroups: Math.ceil(out.size / 64),
    });
    return out;
  },
};

/** The numbers that a packed matrix stands for: f32, of its shape. */
export function unpack(packed: Packed): Tensor {
  const { inputs, attributes } = flat(packed);
  return apply(unpackOperation, inputs, { packed: attributes });
}
