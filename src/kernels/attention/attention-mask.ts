import { DTypeError, ShapeError } from "../../errors.ts";
import { defineKernel } from "../../tensor/kernel.ts";
import { apply, type Operation } from "../../tensor/operation.ts";
import { showShape } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { contiguous } from "../movement/copy.ts";

export interface AttentionMaskOptions {
  /** Columns that belong to the prefix; those of the own keys follow. Default 0. */
  prefixKeys?: number;
  /** What entries get that their row does not attend to. */
  hidden: number;
}

/**
 * Lays an attention mask on scores or a pattern: f32 [heads, rows, prefixKeys + keys], segments u32 [rows, 4] as in
 * `attention` -> f32 of that shape, with `hidden` wherever a row does not attend.
 *
 * @throws ShapeError, DTypeError when they do not go together.
 */
export function maskAttention(
  x: Tensor,
  segments: Tensor,
  { prefixKeys = 0, hidden }: AttentionMaskOptions,
): Tensor {
  if (x.dtype !== "f32" || segments.dtype !== "u32") {
    throw new DTypeError(
      `maskAttention: expected f32 and u32 segments, found ${x.dtype} and ${segments.dtype}`,
    );
  }
  const [rows, four] = segments.shape;
  if (x.rank !== 3 || segments.rank !== 2 || four !== 4 || x.dim(1) !== rows || x.dim(2) < prefixKeys) {
    throw new ShapeError(
      `maskAttention: expected x [heads, rows, ${prefixKeys} or more keys] and segments [rows, 4], found ` +
        `${showShape(x.shape)} and ${showShape(segments.shape)}`,
    );
  }
  return apply(maskAttentionOperation, [x, segments], { prefixKeys, hidden });
}

const SIZE = 64;

export const maskAttentionOperation: Operation<Required<AttentionMaskOptions>> = {
  name: "maskAttention",
  run(inputs, { prefixKeys, hidden }, device) {
    const [x, segments] = inputs.map((t) => contiguous(t)) as [Tensor, Tensor];
    const [, rows, keys] = x.shape as [number, number, number];
    const out = device.empty(x.shape, "f32", "maskAttention");
    maskKernel.launch({
      tensors: { x, segments, out },
      params: {
        count: out.size,
        rows,
        keys,
        prefix_keys: prefixKeys,
        hidden: new Uint32Array(Float32Array.of(hidden).buffer)[0]!,
      },
      constants: {},
      workgroups: Math.ceil(out.size / SIZE),
    });
    return out;
  },
};

const maskKernel = defineKernel({
  name: "maskAttention",
  bindings: { x: "read", segments: "read", out: "write" },
  params: { count: "u32", rows: "u32", keys: "u32", prefix_keys: "u32", hidden: "u32" },
  code: () => `
@compute @workgroup_size(${SIZE})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) local: u32) {
  let i = flat_group(group, groups) * ${SIZE}u + local;
  if (i >= params.count) { return; }
  let column = i % params.keys;
  let own = column >= params.prefix_keys;
  let key = select(column, column - params.prefix_keys, own);
  let at = 4u * (i / params.keys % params.rows) + select(0u, 2u, own);
  if (key >= segments_at(at) && key < segments_at(at + 1u)) {
    out_set_word(i, x_bits(i));
  } else {
    out_set_word(i, params.hidden);
  }
}`,
});
