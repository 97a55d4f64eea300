import {
  CLIP,
  classOf,
  colourSettings,
  cropSize,
  filterOf,
  type ProcessorSettings,
  processorFields,
  resizeTarget,
  type Size,
} from "./processor-config.ts";
import type { Fields } from "./processor-fields.ts";

const CLASSES = new Map([["LlavaNextImageProcessor", { ...CLIP, kind: "llava_next" as const }]]);

/** Where a config is silent; each [height, width]. */
export const LLAVA_NEXT_PINPOINTS = [
  [336, 672],
  [672, 336],
  [672, 672],
  [1008, 336],
  [336, 1008],
] as const;

/**
 * Reads the settings of LLaVA-NeXT's image processor as `readProcessorConfig` reads those of others. Tiles have to be squares
 * of one side, which the whole picture is squeezed into as well: transformers resizes and crops tiles once more, which then
 * does nothing. Throws CheckpointError for all else.
 */
export function readTiledProcessorConfig(
  json: unknown,
  name?: string,
): ProcessorSettings & {
  readonly tiles: NonNullable<ProcessorSettings["tiles"]>;
} {
  const fields = processorFields(json, name);
  const defaults = classOf(fields, CLASSES);
  const { height: side, width } = cropSize(fields, defaults.crop);
  if (side !== width) throw fields.wrong("crop_size", "a square, the size of a tile");
  const to = resizeTarget(fields, defaults);
  const isSquare =
    "height" in to
      ? to.height === side && to.width === side
      : "shortestEdge" in to && to.longestEdge === undefined && to.shortestEdge === side;
  if (!isSquare) throw fields.wrong("size", `the size of a tile (crop_size), ${side}`);
  return {
    kind: defaults.kind,
    resize: { to: { height: side, width: side }, filter: filterOf(fields) },
    tiles: { side, pinpoints: pinpoints(fields, side) },
    ...colourSettings(fields, defaults),
  };
}

function pinpoints(fields: Fields, side: number): Size[] {
  const key = "image_grid_pinpoints";
  const sizes = asSizes(fields.value(key) ?? LLAVA_NEXT_PINPOINTS, side);
  if (sizes) return sizes;
  throw fields.wrong(key, `at least one [height, width], multiples of the size of a tile, ${side}`);
}

/** A list of [height, width] in whole tiles; undefined for anything else. */
export function asSizes(value: unknown, side: number): Size[] | undefined {
  if (!Array.isArray(value) || value.length === 0) return undefined;
  const isLength = (n: unknown) =>
    typeof n === "number" && Number.isSafeInteger(n) && n > 0 && n % side === 0;
  const fits = value.every((size) => Array.isArray(size) && size.length === 2 && size.every(isLength));
  return fits ? value.map(([height, width]) => ({ height, width })) : undefined;
}
