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

/** Keys, or queries, whose scores are computed together: each load of the invocation's own row serves so many. */
export const TILE = 16;
/** As many of them are added up between two stores of the sums. */
export const HALF = TILE / 2;

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
// Bits of numbers without their sign: of NaN and infinity from 0x7f800000 on.
fn magnitude(v: vec4f) -> vec4u { return bitcast<vec4u>(v) & vec4u(0x7fffffffu); }
// 0 in place of NaN and infinity: rows that others alone attend to may hold anything, and have weight 0, not none.
fn regular(v: vec4f) -> vec4f { return select(v, vec4f(), magnitude(v) >= vec4u(0x7f800000u)); }
`;
}

export function count(n: number): number[] {
  return Array.from({ length: n }, (_, i) => i);
}
