import { apply, type Operation } from "../../tensor/operation.ts";
import { type Shape, sizeOf } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { accumulateInto } from "../movement/accumulate.ts";
import { copy } from "../movement/copy.ts";
import { sum } from "../reduction/reduce.ts";
import { sliceCount } from "./attention.ts";
import { type BackwardSource, workgroupLanes } from "./attention-backward-call.ts";
import { launchKeys } from "./attention-backward-keys.ts";
import { launchQueries } from "./attention-backward-queries.ts";
import { outputDots, rowReach, rowStates } from "./attention-backward-rows.ts";
import { tableGradient } from "./attention-backward-table.ts";
import { type AttentionAttributes, attentionSources } from "./attention-call.ts";
import { combineSlices } from "./attention-combine.ts";

interface BackwardAttributes extends AttentionAttributes {
  /** Numbers of the inputs of attention whose gradients are asked for, ascending. */
  readonly wanted: readonly number[];
}

/**
 * The gradients of attention with respect to those of its inputs (as `packAttention` has them) that are `wanted`, f32 of their
 * shapes, in that order. The scores are computed again rather than stored (Dao 2023, arXiv 2307.08691): once by queries and once
 * by keys. `output` is what attention gave, `cotangent` the gradient of the result with respect to it.
 *
 * A row without keys, or whose scores are all -infinity, has gradient 0, and so has a key that no row attends to, whatever it
 * holds. Where a query or a cotangent is NaN or infinite, the keys that it attends to get NaN.
 */
export function attentionBackward(
  inputs: readonly Tensor[],
  { output, cotangent }: { output: Tensor; cotangent: Tensor },
  attributes: BackwardAttributes,
): Tensor[] {
  const flat = apply(backwardOperation, [...inputs, output, cotangent], attributes);
  const parts = layOut(inputs, attributes.wanted);
  return parts.map(({ at, shape }) => flat.slice(0, at, at + sizeOf(shape)).reshape(shape));
}

/** Where the gradients lie in the one output of the operation. */
function layOut(inputs: readonly Tensor[], wanted: readonly number[]): { at: number; shape: Shape }[] {
  let end = 0;
  return wanted.map((i) => {
    const at = end;
    const { shape } = inputs[i]!;
    end += sizeOf(shape);
    return { at, shape };
  });
}

/** Inputs are those of attention, its output and the cotangent; the output is flat, one gradient after the other. */
const backwardOperation: Operation<BackwardAttributes> = {
  name: "attentionBackward",
  run(all, attributes, device) {
    const { wanted, headDim, biased } = attributes;
    const inputs = all.slice(0, -2);
    const parts = layOut(inputs, wanted);
    const partOf = (input: number) => (wanted.includes(input) ? parts[wanted.indexOf(input)] : undefined);
    const flat = device.zeros([parts.reduce((total, { shape }) => total + sizeOf(shape), 0)]);
    if (inputs[0]!.size === 0 || flat.size === 0) return flat;
    const [output, cotangent] = all.slice(-2).map(inFours) as [Tensor, Tensor];
    const sources = attentionSources(inputs, attributes).map((source) => ({ ...source, cotangent }));
    const viewOf = (input: number) => {
      const part = partOf(input);
      return part && flat.slice(0, part.at, part.at + sizeOf(part.shape)).reshape(part.shape);
    };
    const tableAt = inputs.length - 2;
    const delta = outputDots(cotangent, output, headDim);
    const states = backwardQueries(sources, delta, viewOf(0));
    for (const source of sources) {
      const [k, v] = source.column === 2 ? [1, 2] : [4, 5];
      backwardKeys(source, states, flat, { k: partOf(k)?.at, v: partOf(v)?.at });
    }
    const table = biased ? viewOf(tableAt) : undefined;
    if (table) accumulateInto(table, tableGradient(sources, states));
    return flat;
  },
};

/** Loads by four start at multiples of four. */
function inFours(x: Tensor): Tensor {
  return x.contiguous && x.offset % 4 === 0 ? x : copy(x);
}

/** Fills the gradient of the queries, and gives what the weights are computed from. */
function backwardQueries(sources: readonly BackwardSource[], delta: Tensor, out: Tensor | undefined): Tensor {
  const { q, headDim } = sources[0]!;
  const { device } = q;
  const [rows, heads] = [q.dim(0), q.dim(1) / headDim];
  const size = workgroupLanes(device);
  const wanted =
    device.info.kernels === "workgroup" ? { workgroups: 512, keys: 128 } : { workgroups: 32, keys: 64 };
  const slices = sources.map((source) => sliceCount(source, size, wanted));
  const total = slices.reduce((sum, n) => sum + n, 0);
  const stats = device.empty([total, rows * heads, 2], "f32", "attention");
  const partial =
    out && (total === 1 ? out.reshape([1, rows, heads * headDim]) : device.empty([total, ...q.shape], "f32"));
  let start = 0;
  for (const [i, source] of sources.entries()) {
    const end = start + slices[i]!;
    launchQueries(source, {
      slices: slices[i]!,
      delta,
      out: partial?.slice(0, start, end),
      stats: stats.slice(0, start, end),
      whole: total === 1,
    });
    start = end;
  }
  if (out && total > 1) combineSlices(partial!, stats, out, headDim);
  return rowStates(stats, delta);
}

/** Fills the gradients of a source's keys and values, from elements `at` of `flat` on; undefined where they are not wanted. */
function backwardKeys(
  source: BackwardSource,
  states: Tensor,
  flat: Tensor,
  at: { k: number | undefined; v: number | undefined },
): void {
  const { q, k, headDim } = source;
  const places = [at.k, at.v].filter((place) => place !== undefined);
  if (places.length === 0 || k.size === 0) return;
  const from = Math.min(...places);
  const region = flat.slice(0, from, from + places.length * k.size);
  const kAt = at.k === undefined ? undefined : at.k - from;
  const vAt = at.v === undefined ? undefined : at.v - from;
  // On GPUs the queries of few keys are shared out too.
  const [rows, kvHeads] = [q.dim(0), k.dim(1) / headDim];
  const whole = kvHeads * Math.ceil(k.dim(0) / workgroupLanes(q.device));
  const slices =
    q.device.info.kernels === "workgroup"
      ? Math.max(1, Math.min(Math.ceil(256 / whole), Math.floor((rows * q.dim(1)) / k.dim(1) / 64)))
      : 1;
  const reach = rowReach(source);
  const launch = (out: Tensor) => launchKeys(source, { slices, states, reach, out, kAt, vAt });
  if (slices === 1) {
    launch(region.reshape([1, region.size]));
  } else {
    const partial = q.device.empty([slices, region.size], "f32", "attention");
    launch(partial);
    accumulateInto(region, sum(partial, 0));
  }
}
