import { promptCoordinates } from "../model/layers/rope/picture-rope.ts";
import type { Prompt } from "../model/prompt/prompt.ts";
import { picturesOf } from "../model/prompt/prompt-image.ts";
import type { PatchableModel } from "../patching/model.ts";
import { type Check, checkEqual } from "./checks.ts";
import type { Golden, GoldenFile } from "./golden-file.ts";

/**
 * How many patches pictures have, which positions of prompts are theirs and, by time, row and column, where they are, where the goldens have that.
 *
 * @param unpadded a row of [prompts, columns] for each prompt, without its padding
 */
export async function checkPicturePositions(
  goldens: GoldenFile,
  name: string,
  prompts: readonly Prompt[],
  unpadded: (golden: Pick<Golden, "values">) => number[][],
  { config: { vision } }: PatchableModel,
): Promise<Check[]> {
  const checks: Check[] = [];
  // Gemma 3 has them by the other name too, under which they say which tokens see all of their picture.
  for (const input of ["mm_token_type_ids", ...(vision?.wholePictures ? ["token_type_ids"] : [])]) {
    const types = `${name}/in.${input}`;
    if (!vision || !goldens.has(types)) continue;
    const ours = prompts.map(({ ids }) => ids.map((id) => (id === vision.imageTokenId ? 1 : 0)));
    checks.push(checkEqual(types, ours, unpadded(await goldens.read(types, 2))));
  }
  const grids = `${name}/in.image_grid_thw`;
  if (vision && goldens.has(grids)) {
    const merge = vision.processor.patches?.merge ?? 1;
    const ours = prompts.flatMap(picturesOf).map((picture) => {
      const { rows, columns } = vision.layout(picture).grid!;
      return [1, rows * merge, columns * merge];
    });
    const { values } = await goldens.read(grids, 2);
    const theirs = ours.map((_, i) => [...values.subarray(3 * i, 3 * i + 3)]);
    checks.push(checkEqual(grids, ours, theirs));
  }
  const positions = `${name}/position_ids_3d`;
  if (vision && goldens.has(positions)) {
    const { shape, values } = await goldens.read(positions, 3);
    const size = shape[1]! * shape[2]!;
    for (const axis of [0, 1, 2]) {
      const ours = prompts.map((prompt) => [...promptCoordinates(prompt, vision).axes[axis]!]);
      const theirs = unpadded({ values: values.slice(axis * size, (axis + 1) * size) });
      checks.push(checkEqual(`${positions}, ${["time", "row", "column"][axis]}`, ours, theirs));
    }
  }
  return checks;
}
