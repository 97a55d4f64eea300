import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { CheckpointError } from "../errors.ts";
import { decodeImage } from "../images/files/decode.ts";
import type { PixelValues } from "../images/preprocess.ts";
import type { ProcessorSettings } from "../images/processors/processor-config.ts";
import { tileGrid } from "../images/tile-grid.ts";
import { patchesPerSide, type VisionConfig } from "../model/checkpoint/config/vision-config.ts";
import type { VisionSetup } from "../model/checkpoint/config/vision-setup.ts";
import type { JsonObject } from "../model/checkpoint/json/config-reader.ts";
import { squarePlaces } from "../model/layers/towers/vision-tower.ts";
import { type Check, checkEqual } from "./checks.ts";
import type { GoldenFile } from "./golden-file.ts";

/** The processor as the items of a case had it, which may say themselves whether pictures were cut. */
export function splitAs(items: readonly JsonObject[], processor: ProcessorSettings): ProcessorSettings {
  const splits = items[0]?.["split"];
  if (typeof splits !== "boolean") return processor;
  if (processor.kind === "idefics2") return { ...processor, quarters: splits };
  if (!processor.grid) return processor;
  return { ...processor, grid: { ...processor.grid, splits } };
}

/**
 * Pixel values that the goldens have as tiles of all pictures, one after the other: [tiles, 3, side, side], or item by item,
 * [items, most tiles of an item, 3, side, side] with padding. How many a picture has follows from its size, which is that of the
 * file in `folder`. Throws CheckpointError where that does not add up.
 */
export async function readTileGrids(
  goldens: GoldenFile,
  name: string,
  files: readonly string[],
  folder: string,
  { grid: settings }: ProcessorSettings,
  byItem: readonly (readonly string[])[] = [files],
): Promise<PixelValues[]> {
  const key = `${name}/in.pixel_values`;
  const { shape, values } = await goldens.read(key);
  const nested = shape.length === 5;
  const [all, side] = [nested ? shape[0]! * shape[1]! : shape[0]!, shape.at(-1)!];
  const size = 3 * side * side;
  const pixels: PixelValues[] = [];
  let tile = 0;
  for (const [item, own] of byItem.entries()) {
    if (nested) tile = item * shape[1]!;
    for (const file of own) {
      const { width, height } = await decodeImage(await readFile(join(folder, file)));
      const grid = tileGrid({ width, height }, settings!);
      const count = grid ? grid.rows * grid.columns + 1 : 1;
      const data = values.slice(tile * size, (tile + count) * size) as Float32Array<ArrayBuffer>;
      pixels.push({
        data,
        shape: [3, side, side],
        tiling: { count, width, height, ...(grid && { grid }) },
      });
      tile += count;
    }
  }
  const expected = nested ? shape[0] === byItem.length : tile === all;
  if (tile > all || !expected || values.length !== all * size) {
    throw new CheckpointError(
      `${key}: expected the tiles of ${files.length} images, found [${shape.join(", ")}]`,
    );
  }
  return pixels;
}

/** That all of each tile counts, and which learned positions its patches take, where the goldens have that. */
export async function checkTilePixels(
  goldens: GoldenFile,
  name: string,
  pictures: readonly PixelValues[],
  { tower, processor }: VisionSetup,
): Promise<Check[]> {
  if (!processor.grid) return [];
  const checks: Check[] = [];
  const tiles = pictures.reduce((sum, { tiling }) => sum + (tiling?.count ?? 1), 0);
  const side = processor.grid.side;
  const mask = `${name}/in.pixel_attention_mask`;
  if (goldens.has(mask)) {
    const { values } = await goldens.read(mask);
    const whole = Array.from({ length: values.length / side ** 2 }, (_, tile) =>
      [...values.subarray(tile * side ** 2, (tile + 1) * side ** 2)].reduce((sum, one) => sum + one, 0),
    );
    const counted = whole.filter((sum) => sum > 0);
    checks.push(
      checkEqual(
        mask,
        Array.from({ length: tiles }, () => side ** 2),
        counted,
      ),
    );
  }
  const positions = `${name}/vision.position_ids`;
  if (goldens.has(positions)) {
    const { values } = await goldens.read(positions, 2);
    const own = squarePlaces(patchesPerSide(tower as VisionConfig));
    const ours = Array.from({ length: tiles }, () => own);
    const theirs = ours.map((_, tile) => [...values.subarray(tile * own.length, (tile + 1) * own.length)]);
    checks.push(checkEqual(positions, ours, theirs));
  }
  return checks;
}
