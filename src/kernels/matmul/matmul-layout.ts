import { ShapeError } from "../../errors.ts";
import type { Device } from "../../tensor/device.ts";
import { defineKernel } from "../../tensor/kernel.ts";
import { apply, type Operation } from "../../tensor/operation.ts";
import { showShape } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";

/** How a weight [N, K] lies in memory: row-major ("NK", as checkpoints store it) or transposed ("KN"). */
export type WeightLayout = "NK" | "KN";

/** The layout that `linear` reads fastest on this device: along K on GPUs, along N on CPU drivers. */
export function preferredWeightLayout(device: Device): WeightLayout {
  return device.info.kernels === "register" ? "KN" : "NK";
}

/**
 * The weight [N, K] in the layout that suits the device: the same shape, dtype and bits, perhaps other strides. Always
 * a tensor of its own, so that the argument can be disposed of; it shares memory with it where nothing had to move.
 *
 * @throws ShapeError unless the weight has two dimensions.
 */
export function toPreferredLayout(weight: Tensor): Tensor {
  if (weight.rank !== 2)
    throw new ShapeError(`toPreferredLayout: expected [N, K], found ${showShape(weight.shape)}`);
  const [rows, depth] = weight.shape as [number, number];
  const stored = weight.strides[1] === 1 && weight.strides[0] === depth;
  // Columns that do not come in fours gain nothing, and a 16-bit one would share a word with the next row.
  if (preferredWeightLayout(weight.device) === "NK" || !stored || rows % 4 !== 0) return weight.alias();
  const transposed = apply(transposeWeight, [weight], {});
  const view = transposed.transpose();
  transposed.dispose();
  return view;
}

const transposeWeight: Operation<Record<never, never>> = {
  name: "transpose_weight",
  run([weight], _attributes, device) {
    const [rows, depth] = weight!.shape as [number, number];
    const out = device.empty([depth, rows], weight!.dtype, "transpose_weight");
    const words = (depth * rows * (out.bytes / out.size)) / 4;
    kernel.launch({
      tensors: { weight: weight!, out },
      params: { rows, depth, words },
      constants: {},
      workgroups: Math.ceil(words / 64),
    });
    return out;
  },
};

/** One invocation writes one 32-bit word of the transposed matrix: one element, or two of 16 bits. */
const kernel = defineKernel({
  name: "transpose_weight",
  bindings: { weight: "read", out: "write" },
  params: { rows: "u32", depth: "u32", words: "u32" },
  code: ({ dtype }) => /* wgsl */ `
@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let word = flat_group(group, groups) * 64u + lane;
  if (word >= params.words) { return; }
${
  dtype("weight") === "f32"
    ? `
  out_set_word(word, weight_bits(word % params.rows * params.depth + word / params.rows));`
    : `
  let k = word * 2u / params.rows;
  let n = word * 2u % params.rows;
  let low = weight_bits(n * params.depth + k);
  let high = weight_bits((n + 1u) * params.depth + k);
  out_set_word(word, low | (high << 16u));`
}
}`,
});

/** Words that an invocation copies. */
const RUN = 8;

/**
 * Tensors of one dtype side by side, bit for bit: each is `lines` lines one after the other, and so is the result, whose lines
 * are those of all tensors joined. 1-D; in memory in order, and lines of whole words.
 */
export function joinLines(tensors: readonly Tensor[], lines: number): Tensor {
  return apply(joinLinesOperation, tensors, { lines });
}

const joinLinesOperation: Operation<{ lines: number }> = {
  name: "join_lines",
  run(inputs, { lines }, device) {
    const words = inputs.map((x) => x.bytes / lines / 4);
    if (words.some((n) => !Number.isInteger(n))) {
      throw new ShapeError(`joinLines: expected ${lines} lines of whole words, found ${inputs.join(", ")}`);
    }
    const total = words.reduce((sum, n) => sum + n, 0);
    const size = inputs.reduce((sum, x) => sum + x.size, 0);
    const out = device.empty([size], inputs[0]!.dtype, "join_lines");
    let start = 0;
    for (const [i, x] of inputs.entries()) {
      const width = words[i]!;
      joinKernel.launch({
        tensors: { x, out },
        params: { words: width * lines, width, total, start },
        constants: {},
        workgroups: Math.ceil((width * lines) / (64 * RUN)),
      });
      start += width;
    }
    return out;
  },
};

const joinKernel = defineKernel({
  name: "join_lines",
  bindings: { x: "read", out: "write" },
  params: { words: "u32", width: "u32", total: "u32", start: "u32" },
  code: ({ dtype }) => /* wgsl */ `
@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let first = flat_group(group, groups) * ${64 * RUN}u + lane;
  for (var i = 0u; i < ${RUN}u; i++) {
    let word = first + i * 64u;
    if (word >= params.words) { return; }
    let at = word / params.width * params.total + params.start + word % params.width;
${
  dtype("x") === "f16" || dtype("x") === "bf16"
    ? "    out_set_word(at, x_bits(2u * word) | (x_bits(2u * word + 1u) << 16u));"
    : "    out_set_word(at, x_bits(word));"
}
  }
}`,
});
