import type { Tensor } from "../../tensor/tensor.ts";
import type { Picture, VisionSetup } from "../checkpoint/config/vision-setup.ts";
import { firstImages, imagePlaces } from "../prompt/image-places.ts";
import type { Prompt } from "../prompt/prompt.ts";
import { picturesOf } from "../prompt/prompt-image.ts";
import type { Place } from "./additions.ts";
import { PassKeys } from "./key-value-store.ts";
import { Pass } from "./pass.ts";
import { RowMap } from "./row-map.ts";
import type { SitePrefix } from "./sites.ts";

/** How many rows a picture of a prompt has. */
type RowsOf = (image: Picture, prompt: Prompt) => number;

/**
 * The pass over the images of a pass's prompts, a sequence an image, each of as many rows as `rowsOf` says: the vision
 * tower's patches, or the features that it hands on. Images are numbered through the whole batch. Its keys are as many as
 * its rows, or as `keysOf` says. Its tables are for whoever computes the images, and go with the current scope.
 */
export function passOverImages(
  pass: Pass,
  rowsOf: RowsOf,
  { prefix = "vision.", keysOf }: { prefix?: SitePrefix; keysOf?: RowsOf } = {},
): Pass {
  const { device, prompts, inUse } = pass;
  return Pass.over(device, [], {
    images: prompts.flatMap(picturesOf),
    rows: imageRows(pass, rowsOf),
    inUse,
    prefix,
    ...(keysOf && { keys: new PassKeys(imageRows(pass, keysOf)) }),
  });
}

/** The pass over what an encoder reads for the decoder's sequences that a pass is over, numbered alike. */
export function passOverSources(pass: Pass): Pass {
  const { device, inUse } = pass;
  const prompts = pass.prompts.map(({ source }) => source!);
  let row = 0;
  const spans = pass.rows.spans.map(({ sequence }) => {
    const count = prompts[sequence]!.length;
    row += count;
    return { sequence, position: 0, row: row - count, count };
  });
  const onPixels = (pixels: Tensor) => void pass.pixels(pixels);
  return Pass.over(device, prompts, { rows: new RowMap(spans), inUse, onPixels, prefix: "encoder." });
}

/** Where the features of a pass's pictures go, picture by picture. */
export function placesOfImages({ prompts, rows }: Pass, setup: VisionSetup): Place[] {
  return rows.spans.flatMap(({ sequence }) =>
    imagePlaces(prompts[sequence]!, setup).map((position) => ({ sequence, position })),
  );
}

function imageRows({ prompts, rows }: Pass, rowsOf: RowsOf): RowMap {
  const first = firstImages(prompts);
  let row = 0;
  const spans = rows.spans.flatMap(({ sequence }) =>
    picturesOf(prompts[sequence]!).map((image, i) => {
      const count = rowsOf(image, prompts[sequence]!);
      row += count;
      return { sequence: first[sequence]! + i, position: 0, row: row - count, count };
    }),
  );
  return new RowMap(spans);
}
