import type { MultiplesGrid, TileGridSettings } from "../tile-grid.ts";
import {
  CLIP,
  type ClassDefaults,
  classOf,
  colourSettings,
  filterOf,
  type ProcessorSettings,
  processorFields,
  resizeTarget,
} from "./processor-config.ts";
import type { Fields } from "./processor-fields.ts";

const IDEFICS3: ClassDefaults = {
  kind: "idefics3",
  size: { height: 364, width: 364 },
  mean: [0.5, 0.5, 0.5],
  std: [0.5, 0.5, 0.5],
};
const IDEFICS3_CLASSES = new Map([
  ["Idefics3ImageProcessor", IDEFICS3],
  ["SmolVLMImageProcessor", IDEFICS3],
]);

/** Settings of a processor that cuts pictures into a grid. */
export type GridProcessorSettings = ProcessorSettings & { readonly grid: TileGridSettings };

/**
 * Reads the settings of the image processors of Idefics3 and SmolVLM as `readProcessorConfig` reads those of others. Throws
 * CheckpointError for other classes.
 */
export function readIdefics3Processor(json: unknown, name?: string): GridProcessorSettings {
  const fields = processorFields(json, name);
  const defaults = classOf(fields, IDEFICS3_CLASSES);
  const side = fields.has("max_image_size") ? longestEdge(fields.inner("max_image_size")) : 364;
  fields.flag("do_pad", true); // Tiles are all of one size, so there is nothing to pad.
  const first = fields.flag("do_resize", true) ? firstTarget(fields) : undefined;
  const splits = fields.flag("do_image_splitting", true);
  return gridSettings(fields, defaults, { by: "multiples", side, splits, ...(first && { first }) }, 1);
}

function gridSettings(
  fields: Fields,
  defaults: ClassDefaults,
  grid: TileGridSettings,
  resample: number,
): GridProcessorSettings {
  const to = { height: grid.side, width: grid.side };
  return {
    kind: defaults.kind,
    resize: { to, filter: filterOf(fields, resample) },
    grid,
    ...colourSettings(fields, defaults),
  };
}

function longestEdge(fields: Fields): number {
  if (fields.keys().join() !== "longest_edge") throw fields.wrong("longest_edge", "all that there is");
  return fields.pixels("longest_edge");
}

function firstTarget(fields: Fields): NonNullable<MultiplesGrid["first"]> {
  if (!fields.has("size")) return { longestEdge: 4 * 364 };
  const size = fields.inner("size");
  switch (size.keys().join(", ")) {
    case "longest_edge":
      return { longestEdge: size.pixels("longest_edge") };
    case "height, width":
      return { height: size.pixels("height"), width: size.pixels("width") };
    default:
      throw fields.wrong("size", "an object of longest_edge, or of height, width");
  }
}

const INTERNVL_CLASSES = new Map([
  [
    "GotOcr2ImageProcessor",
    { kind: "internvl" as const, size: { height: 384, width: 384 }, mean: CLIP.mean, std: CLIP.std },
  ],
]);

/**
 * The same for InternVL's. Its processor has pictures cut up whatever `crop_to_patches` says.
 */
export function readInternVlProcessor(json: unknown, name?: string): GridProcessorSettings {
  const fields = processorFields(json, name);
  const defaults = classOf(fields, INTERNVL_CLASSES);
  const to = resizeTarget(fields, defaults);
  if (!("height" in to) || to.height !== to.width)
    throw fields.wrong("size", "the height and width of a square");
  const count = (key: string, fallback: number) => (fields.has(key) ? fields.count(key) : fallback);
  const [fewest, most] = [count("min_patches", 1), count("max_patches", 12)];
  fields.flag("crop_to_patches", true);
  const splits = most > 1;
  if (!splits && !fields.flag("do_resize", true))
    throw fields.wrong("do_resize", "true where nothing is cut");
  return gridSettings(fields, defaults, { by: "ratio", side: to.height, splits, fewest, most }, 3);
}
