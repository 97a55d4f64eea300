import type { Picture, VisionSetup } from "../model/checkpoint/config/vision-setup.ts";
import { type NativeSizeTowerConfig, positionIds } from "../model/layers/towers/native-size-tower.ts";
import { type Check, checkEqual } from "./checks.ts";
import type { GoldenFile } from "./golden-file.ts";

/**
 * Which learned positions the patches of pictures of unequal size have, where the goldens have that: [pictures, columns], of
 * which `columns` hold the patches of each.
 */
export async function checkTowerPositions(
  goldens: GoldenFile,
  name: string,
  pictures: readonly Picture[],
  columns: readonly (readonly number[])[],
  setup: VisionSetup,
): Promise<Check[]> {
  const key = `${name}/vision.position_ids`;
  if (!goldens.has(key)) return [];
  const { shape, values } = await goldens.read(key, 2);
  const theirs = columns.flatMap((own, i) => own.map((column) => values[i * shape[1]! + column]!));
  return [checkEqual(key, [...positionIds(pictures, setup as VisionSetup<NativeSizeTowerConfig>)], theirs)];
}
