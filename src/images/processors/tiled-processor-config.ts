import {
  asBytes,
  CLIP,
  type ClassDefaults,
  classOf,
  colourSettings,
  cropSize,
  filterOf,
  type ProcessorSettings,
  processorFields,
  type ResizeTarget,
  resizeTarget,
  type Size,
} from "./processor-config.ts";
import type { Fields } from "./processor-fields.ts";

const CLASSES = new Map<string, ClassDefaults>([
  ["LlavaNextImageProcessor", { ...CLIP, kind: "llava_next" }],
  [
    "LlavaOnevisionImageProcessor",
    { kind: "llava_onevision", size: { height: 384, width: 384 }, mean: CLIP.mean, std: CLIP.std },
  ],
]);

/** Where a config is silent; each [height, width]. */
export const LLAVA_NEXT_PINPOINTS = [
  [336, 672],
  [672, 336],
  [672, 672],
  [1008, 336],
  [336, 1008],
] as const;

const SIDES = [384, 768, 1152, 1536, 1920, 2304];
/** The same of LLaVA-OneVision. */
export const ONEVISION_PINPOINTS = SIDES.flatMap((height) => SIDES.map((width) => [height, width] as const));

/**
 * Reads the settings of the image processors of LLaVA-NeXT and LLaVA-OneVision as `readProcessorConfig` reads those of others.
 * Tiles have to be squares of one side, which the whole picture is squeezed into as well: transformers resizes and crops tiles
 * once more, which then does nothing. Throws CheckpointError for all else.
 */
export function readTiledProcessorConfig(
  json: unknown,
  name?: string,
): ProcessorSettings & {
  readonly tiles: NonNullable<ProcessorSettings["tiles"]>;
} {
  const fields = processorFields(json, name);
  const defaults = classOf(fields, CLASSES);
  const onlyAlone = defaults.kind === "llava_onevision";
  const to = resizeTarget(fields, defaults);
  // Without a crop tiles are of the size that pictures are resized to.
  const { height: side, width } =
    defaults.crop || fields.has("crop_size") ? cropSize(fields, defaults.crop) : squareOf(to);
  if (side !== width) throw fields.wrong("crop_size", "a square, the size of a tile");
  const square = squareOf(to);
  if (square.height !== side || square.width !== side) {
    throw fields.wrong("size", `the size of a tile (crop_size), ${side}`);
  }
  // Whole pictures among others are resized where tiles would stay as they are.
  if (onlyAlone && !fields.flag("do_resize", true)) throw fields.wrong("do_resize", "true");
  const mean = fields.channels("image_mean") ?? defaults.mean;
  return {
    kind: defaults.kind,
    ...(onlyAlone && { padColour: asBytes(mean) }),
    resize: { to: { height: side, width: side }, filter: filterOf(fields) },
    tiles: { side, pinpoints: pinpoints(fields, side, onlyAlone), ...(onlyAlone && { onlyAlone }) },
    ...colourSettings(fields, defaults),
  };
}

/** The square that tiles are resized to; anything else has sides that differ. */
function squareOf(to: ResizeTarget): Size {
  if ("height" in to) return to;
  const side = "shortestEdge" in to && to.longestEdge === undefined ? to.shortestEdge : Number.NaN;
  return { height: side, width: side };
}

function pinpoints(fields: Fields, side: number, onlyAlone: boolean): Size[] {
  const key = "image_grid_pinpoints";
  const byDefault = onlyAlone ? ONEVISION_PINPOINTS : LLAVA_NEXT_PINPOINTS;
  const sizes = asSizes(fields.value(key) ?? byDefault, side);
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
