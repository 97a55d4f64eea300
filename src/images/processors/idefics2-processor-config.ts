import {
  type ClassDefaults,
  classOf,
  colourSettings,
  filterOf,
  type ProcessorSettings,
  processorFields,
  type ResizeTarget,
} from "./processor-config.ts";
import type { Fields } from "./processor-fields.ts";

const DEFAULTS: ClassDefaults = {
  kind: "idefics2",
  size: { longestEdge: 980, leastEdge: 378 },
  mean: [0.5, 0.5, 0.5],
  std: [0.5, 0.5, 0.5],
};
const CLASSES = new Map([["Idefics2ImageProcessor", DEFAULTS]]);

/**
 * Reads the settings of Idefics 2's image processor as `readProcessorConfig` reads those of others. Its class does not crop,
 * whatever a config says, and pads pictures only to have them in one tensor, which is not done here. Throws CheckpointError for
 * other classes and for values that are not what their key asks for.
 */
export function readIdefics2ProcessorConfig(json: unknown, name?: string): ProcessorSettings {
  const fields = processorFields(json, name);
  const { kind, size } = classOf(fields, CLASSES);
  const resizes = fields.flag("do_resize", true);
  const quarters = fields.flag("do_image_splitting", false);
  return {
    kind,
    ...(resizes && { resize: { to: targetOf(fields, size), filter: filterOf(fields, 2) } }),
    ...(quarters && { quarters }),
    ...colourSettings(fields, DEFAULTS),
  };
}

function targetOf(fields: Fields, fallback: ResizeTarget): ResizeTarget {
  if (!fields.has("size")) return fallback;
  const size = fields.inner("size");
  switch (size.keys().join(", ")) {
    case "longest_edge, shortest_edge":
      return { longestEdge: size.pixels("longest_edge"), leastEdge: size.pixels("shortest_edge") };
    case "height, width":
      return { height: size.pixels("height"), width: size.pixels("width") };
    default:
      throw fields.wrong("size", "an object of longest_edge, shortest_edge; or height, width");
  }
}
