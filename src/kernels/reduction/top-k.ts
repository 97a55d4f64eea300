import { ShapeError } from "../../errors.ts";
import type { Device } from "../../tensor/device.ts";
import { defineKernel, type Variant } from "../../tensor/kernel.ts";
import { apply, type Operation } from "../../tensor/operation.ts";
import { showShape } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { orderKey } from "../elementwise/float-bits.ts";
import { contiguous } from "../movement/copy.ts";
import { takeAlongAxis } from "../movement/gather.ts";

/** Largest k: the selected elements are kept in one workgroup's memory. */
export const MAX_TOP_K = 1024;

/** Rows up to this length are not worth a workgroup each. */
const SHORT = 64;

const PARAMS = { width: "u32", n: "u32", chunk: "u32", chunks: "u32", slots: "u32", k: "u32" } as const;
const BINDINGS = { x: "read", ids: "read?", out: "write" } as const;

/** `capacity` is k rounded up, so that few variants are compiled. */
type SelectVariant = Variant<"x" | "ids" | "out", { capacity: number }>;

/**
 * Entries of a row are pairs (order key, index); the greater key goes first, then the lower index. An earlier pass
 * leaves its choices in `ids`, with NONE where a chunk had fewer than k elements.
 */
function entries({ has, element }: SelectVariant): string {
  return `
const NONE = 0xffffffffu;
${orderKey(element("x"), true)}
fn entry(row: u32, r: u32) -> vec2u {
  let at = ${has("ids") ? "ids_at(row * params.n + r)" : "r"};
  if (at == NONE) { return vec2u(0u, NONE); }
  return vec2u(order_key(x_at(row * params.width + at)), at);
}
fn before(a: vec2u, b: vec2u) -> bool { return a.x > b.x || (a.x == b.x && a.y < b.y); }`;
}

/** One invocation per chunk keeps its k best in a sorted list: no barriers, for CPU drivers and for short rows. */
const insertionKernel = defineKernel({
  name: "topKInsertion",
  bindings: BINDINGS,
  params: PARAMS,
  code: (variant: SelectVariant) => `
${entries(variant)}
@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) local: u32) {
  let slot = flat_group(group, groups) * 8u + local;
  if (slot >= params.slots) { return; }
  let row = slot / params.chunks;
  let start = slot % params.chunks * params.chunk;
  let end = min(start + params.chunk, params.n);
  var best: array<vec2u, ${variant.constants.capacity}>;
  for (var j = 0u; j < params.k; j++) { best[j] = vec2u(0u, NONE); }
  var last = vec2u(0u, NONE);
  for (var r = start; r < end; r++) {
    let candidate = entry(row, r);
    if (!before(candidate, last)) { continue; }
    var j = params.k - 1u;
    while (j > 0u) {
      let above = best[j - 1u];
      if (!before(candidate, above)) { break; }
      best[j] = above;
      j--;
    }
    best[j] = candidate;
    last = best[params.k - 1u];
  }
  for (var j = 0u; j < params.k; j++) { out_set(slot * params.k + j, best[j].y); }
}`,
});

/**
 * One workgroup per chunk: radix selection, eight bits a pass from the top of (key, ~index), narrows down to the k-th
 * entry; everything up to it is collected and ranked. Stops early once a digit's whole bucket is wanted.
 */
const radixKernel = defineKernel({
  name: "topKRadix",
  bindings: BINDINGS,
  params: PARAMS,
  code: (variant: SelectVariant) => `
${entries(variant)}
const BINS = 256u;
var<workgroup> histogram: array<atomic<u32>, BINS>;
var<workgroup> suffix: array<u32, BINS>;
var<workgroup> chosen: array<vec2u, ${variant.constants.capacity}>;
var<workgroup> taken: atomic<u32>;
/** Digit of the k-th entry, how many of its bucket are wanted, and whether that is all of them. */
var<workgroup> found: vec3u;

@compute @workgroup_size(BINS)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) local: u32) {
  let slot = flat_group(group, groups);
  if (slot >= params.slots) { return; }
  let row = slot / params.chunks;
  let start = slot % params.chunks * params.chunk;
  let end = min(start + params.chunk, params.n);
  let count = min(params.k, end - start);

  var prefix = vec2u(0u);
  var mask = vec2u(0u);
  var wanted = count;
  for (var pass_ = 0u; pass_ < 8u; pass_++) {
    let word = pass_ / 4u;
    let shift = 24u - pass_ % 4u * 8u;
    atomicStore(&histogram[local], 0u);
    workgroupBarrier();
    for (var r = start + local; r < end; r += BINS) {
      let e = entry(row, r);
      let key = vec2u(e.x, ~e.y);
      if (all((key & mask) == prefix)) { atomicAdd(&histogram[(key[word] >> shift) & 255u], 1u); }
    }
    workgroupBarrier();
    suffix[local] = atomicLoad(&histogram[local]);
    for (var step = 1u; step < BINS; step *= 2u) {
      workgroupBarrier();
      var sum = suffix[local];
      if (local + step < BINS) { sum += suffix[local + step]; }
      workgroupBarrier();
      suffix[local] = sum;
    }
    workgroupBarrier();
    let above = suffix[local] - atomicLoad(&histogram[local]);
    if (above < wanted && suffix[local] >= wanted) {
      found = vec3u(local, wanted - above, u32(suffix[local] == wanted));
    }
    let next = workgroupUniformLoad(&found);
    prefix[word] |= next.x << shift;
    mask[word] |= 255u << shift;
    wanted = next.y;
    if (next.z == 1u) { break; }
  }

  for (var r = start + local; r < end; r += BINS) {
    let e = entry(row, r);
    let key = vec2u(e.x, ~e.y) & mask;
    if (key.x > prefix.x || (key.x == prefix.x && key.y >= prefix.y)) { chosen[atomicAdd(&taken, 1u)] = e; }
  }
  workgroupBarrier();
  for (var i = local; i < params.k; i += BINS) {
    var rank = i;
    var id = NONE;
    if (i < count) {
      rank = 0u;
      for (var j = 0u; j < count; j++) { rank += u32(before(chosen[j], chosen[i])); }
      id = chosen[i].y;
    }
    out_set(slot * params.k + rank, id);
  }
}`,
});

function selectPass(
  x: Tensor,
  ids: Tensor | undefined,
  rows: number,
  n: number,
  chunks: number,
  k: number,
): Tensor {
  const slots = rows * chunks;
  const out = x.device.empty([slots, k], "u32", "topK");
  const launch = {
    tensors: { x, ids, out },
    params: { width: x.dim(-1), n, chunk: Math.ceil(n / chunks), chunks, slots, k },
    constants: { capacity: Math.max(8, 2 ** Math.ceil(Math.log2(k))) },
  };
  if (x.device.info.kernels === "workgroup" && n > SHORT)
    radixKernel.launch({ ...launch, workgroups: slots });
  else insertionKernel.launch({ ...launch, workgroups: Math.ceil(slots / 8) });
  return out;
}

/** Chunks a row is cut into for a first pass, so that a few long rows still make parallel work. */
function chunksFor(device: Device, rows: number, n: number, k: number): number {
  const [length, enough] = device.info.kernels === "workgroup" ? [8192, 512] : [1024, 64];
  const chunks = Math.min(Math.ceil(n / length), Math.ceil(enough / rows));
  if (chunks * k * 2 > n) return 1;
  return Math.ceil(n / Math.ceil(n / chunks)); // none is empty
}

export const topKOperation: Operation<{ k: number }> = {
  name: "topK",
  run([input], { k }, device) {
    const x = contiguous(input!);
    const n = x.dim(-1);
    const shape = x.shape.with(-1, k);
    const rows = x.size / Math.max(1, n);
    if (rows * k === 0) return device.empty(shape, "u32", "topK");
    const chunks = chunksFor(device, rows, n, k);
    let ids = selectPass(x, undefined, rows, n, chunks, k);
    if (chunks > 1) ids = selectPass(x, ids, rows, chunks * k, 1, k);
    return ids.reshape(shape);
  },
};

/**
 * The k greatest elements along the last axis, greatest first; equal elements by ascending index, NaN before all.
 *
 * @param x [..., n], any dtype.
 * @param k 0..min(n, 1024).
 * @returns values [..., k] (f32 for floats, else x's dtype) and indices u32 [..., k].
 * @throws ShapeError
 */
export function topK(x: Tensor, k: number): { values: Tensor; indices: Tensor<"u32"> } {
  const n = x.rank === 0 ? 0 : x.dim(-1);
  if (x.rank === 0 || !Number.isInteger(k) || k < 0 || k > Math.min(n, MAX_TOP_K)) {
    throw new ShapeError(
      `topK: expected k from 0 to ${Math.min(n, MAX_TOP_K)} for shape ${showShape(x.shape)}, found ${k}`,
    );
  }
  const indices = apply(topKOperation, [x], { k }) as Tensor<"u32">;
  return { values: takeAlongAxis(x, indices), indices };
}
