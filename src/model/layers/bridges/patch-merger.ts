import { activation } from "../../../kernels/elementwise/activation.ts";
import type { Tensor } from "../../../tensor/tensor.ts";
import type { PatchTowerConfig } from "../../checkpoint/config/patch-tower-config.ts";
import type { Weights } from "../../checkpoint/weights/weights.ts";
import type { Norm } from "../norm.ts";

/** What a merger's parts are called. */
export interface MergerNames {
  readonly norm: string;
  readonly in: string;
  readonly out: string;
}

/** Makes each block of `merge` by `merge` patches, which lie together, one feature: [patches, width] → [features, outWidth]. */
export type Merger = (x: Tensor) => Tensor;

/**
 * The merger under `prefix`: a norm, blocks put together, and an MLP. The norm is of each patch by itself, or with
 * `normsBlocks` of the whole block.
 */
export async function readMerger(
  w: Weights,
  { width, outWidth, patches: { merge } }: PatchTowerConfig,
  prefix: string,
  names: MergerNames,
  norm: (name: string, width: number) => Promise<Norm>,
  { normsBlocks = false } = {},
): Promise<Merger> {
  const joined = width * merge ** 2;
  const normed = await norm(`${prefix}${names.norm}`, normsBlocks ? joined : width);
  const first = await w.linear(`${prefix}${names.in}`, [joined, joined], true);
  const second = await w.linear(`${prefix}${names.out}`, [outWidth, joined], true);
  return (x) => {
    const shape = [x.dim(0) / merge ** 2, joined];
    const blocks = normsBlocks ? normed(x.reshape(shape)) : normed(x).reshape(shape);
    return second.apply(activation(first.apply(blocks), "gelu"));
  };
}
