import { DTypeError, ShapeError } from "../../errors.ts";
import { isFloat } from "../../tensor/dtype.ts";
import { defineKernel } from "../../tensor/kernel.ts";
import { apply, type Operation } from "../../tensor/operation.ts";
import { showShape } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { contiguous } from "./copy.ts";

const SIZE = 64;

const MAIN = `
@compute @workgroup_size(${SIZE})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) local: u32) {
  let i = flat_group(group, groups) * ${SIZE}u + local;
  if (i >= params.count) { return; }`;

/**
 * Chains equal ids of a batch, so that one invocation can add up what belongs to them in order: WGSL has no atomic floats, and
 * their order would be another in each run. Links are the place in the batch of the next equal id (n at the end of a chain),
 * twice that, plus 1 where no earlier one begins the chain.
 */
const linkKernel = defineKernel({
  name: "linkEqualIds",
  bindings: { ids: "read", links: "write" },
  params: { count: "u32", n: "u32" },
  code: () => `${MAIN}
  let start = i / params.n * params.n;
  let id = ids_at(i);
  var before = i;
  while (before > start && ids_at(before - 1u) != id) { before--; }
  var next = i + 1u;
  while (next < start + params.n && ids_at(next) != id) { next++; }
  links_set(i, 2u * (next - start) + select(0u, 1u, before == start));
}`,
});

/** Adds up each chain where it begins. Ids out of range belong nowhere. */
const sumKernel = defineKernel({
  name: "scatterAdd",
  bindings: { source: "read", ids: "read", links: "read", out: "write" },
  params: { count: "u32", n: "u32", width: "u32", rows: "u32", row_step: "u32", step: "u32" },
  code: () => `${MAIN}
  let slot = i / params.width;
  let column = i % params.width;
  let row = u32(ids_at(slot));
  if (row >= params.rows || (links_at(slot) & 1u) == 0u) { return; }
  let batch = slot / params.n;
  var total = 0.0;
  var at = slot % params.n;
  while (at < params.n) {
    let j = batch * params.n + at;
    total += source_at(j * params.width + column);
    at = links_at(j) / 2u;
  }
  out_set(batch * params.rows * params.width + row * params.row_step + column * params.step, total);
}`,
});

interface ScatterAddAttributes {
  readonly rows: number;
  readonly transposed: boolean;
}

const scatterAddOperation: Operation<ScatterAddAttributes> = {
  name: "scatterAdd",
  run([source, given], { rows, transposed }, device) {
    const [batches, n, width] = source!.shape as [number, number, number];
    const ids = contiguous(given!);
    const out = device.zeros([batches, ...(transposed ? [width, rows] : [rows, width])]);
    const links = device.empty(ids.shape, "u32", "scatterAdd");
    linkKernel.launch({
      tensors: { ids, links },
      params: { count: ids.size, n },
      constants: {},
      workgroups: Math.ceil(ids.size / SIZE),
    });
    sumKernel.launch({
      tensors: { source: contiguous(source!), ids, links, out },
      params: {
        count: source!.size,
        n,
        width,
        rows,
        row_step: transposed ? 1 : width,
        step: transposed ? rows : 1,
      },
      constants: {},
      workgroups: Math.ceil(source!.size / SIZE),
    });
    return transposed ? out.transpose() : out;
  },
};

/** Where {@link scatterAdd} adds. */
export interface ScatterAddOptions {
  /** The result is a transposed view, row-major the other way. Default false. */
  readonly transposed?: boolean;
}

/**
 * Rows added to rows of zeros: `out[b, ids[b, i], :] += source[b, i, :]`, those of one id in their order, so that each run gives
 * the same bits. It is to `gatherRows` and `takeAlongAxis` what going back is to going forward. Work grows with the square of n
 * where all ids differ.
 *
 * @param source any float dtype, [batches, n, width]
 * @param ids i32 or u32 [batches, n]; those outside 0..rows-1 are passed over
 * @returns f32 [batches, rows, width]
 * @throws ShapeError, DTypeError
 */
export function scatterAdd(
  source: Tensor,
  ids: Tensor,
  rows: number,
  { transposed = false }: ScatterAddOptions = {},
): Tensor {
  if (source.rank !== 3 || ids.rank !== 2 || source.dim(0) !== ids.dim(0) || source.dim(1) !== ids.dim(1)) {
    throw new ShapeError(
      `scatterAdd: expected a source [batches, n, width] and ids [batches, n], found ${showShape(source.shape)} and ${showShape(ids.shape)}`,
    );
  }
  if (!isFloat(source.dtype) || isFloat(ids.dtype)) {
    throw new DTypeError(
      `scatterAdd: expected a float source and integer ids, found ${source.dtype} and ${ids.dtype}`,
    );
  }
  return apply(scatterAddOperation, [source, ids], { rows, transposed });
}
