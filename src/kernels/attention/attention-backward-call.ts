import type { Device } from "../../tensor/device.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { AttentionSource } from "./attention-call.ts";

/** A source of keys on the way back. */
export interface BackwardSource extends AttentionSource {
  /** d(result) / d(output), f32 [rows, heads * headDim], contiguous from a multiple of four elements on. */
  readonly cotangent: Tensor;
}

/**
 * Invocations of a workgroup: a vector of a CPU core, or a warp of a GPU. One design serves both, since each invocation keeps its
 * sums in registers and all read the same keys (or queries) at a time: loads that CPU drivers share by subgroups, and that GPUs
 * make once for a warp.
 */
export function workgroupLanes(device: Device): number {
  return device.info.kernels === "register" ? 8 : 32;
}

/**
 * Keys, or queries, whose scores are computed together: each load of the invocation's own row serves so many. Twice as many gain
 * nothing on lavapipe, and take twice as long to compile.
 */
export const TILE = 8;

/** Vectors of four dimensions that an invocation sums up. */
export const OWNED_VECTORS = 16;

/** WGSL functions that backward kernels share, beside those of attention. */
export function backwardHelpers(softcap: number): string {
  const slope =
    softcap === 0
      ? "fn slope(x: f32) -> f32 { return 1.0; }"
      : `fn slope(x: f32) -> f32 { let y = capped(x) / ${softcap}; return 1.0 - y * y; }`;
  return `
// How much a score grows with its scaled product.
${slope}
fn add_dot(sum: f32, a: vec4f, b: vec4f) -> f32 {
  return fma(a.w, b.w, fma(a.z, b.z, fma(a.y, b.y, fma(a.x, b.x, sum))));
}
// 0 in place of NaN and infinity. What those mean for whoever attends is in the scores and in delta; rows that only others attend
// to may hold anything, and are multiplied by a weight of 0.
fn regular(v: vec4f) -> vec4f {
  return select(v, vec4f(), (bitcast<vec4u>(v) & vec4u(0x7f800000u)) == vec4u(0x7f800000u));
}
`;
}

export function count(n: number): number[] {
  return Array.from({ length: n }, (_, i) => i);
}
