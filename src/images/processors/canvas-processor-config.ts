import type { CanvasSettings } from "../canvas-tiles.ts";
import {
  type ClassDefaults,
  classOf,
  colourSettings,
  filterOf,
  type ProcessorSettings,
  processorFields,
} from "./processor-config.ts";

/** Settings of a processor that lays pictures on canvases. */
export type CanvasProcessorSettings = ProcessorSettings & { readonly canvas: CanvasSettings };

const MLLAMA: ClassDefaults = {
  kind: "mllama",
  size: { height: 224, width: 224 },
  mean: [0.5, 0.5, 0.5],
  std: [0.5, 0.5, 0.5],
};
const CLASSES = new Map([["MllamaImageProcessor", MLLAMA]]);
/** Of the class, PIL's bilinear. */
const RESAMPLE = 2;

/**
 * Reads the settings of Llama 3.2 Vision's image processor as `readProcessorConfig` reads those of others. Throws
 * CheckpointError for other classes, and for what the class refuses too.
 */
export function readCanvasProcessor(json: unknown, name?: string): CanvasProcessorSettings {
  const fields = processorFields(json, name);
  const defaults = classOf(fields, CLASSES);
  for (const step of ["do_resize", "do_pad"]) {
    if (!fields.flag(step, true)) throw fields.wrong(step, "true, as its class wants it");
  }
  let side = 224;
  if (fields.has("size")) {
    const size = fields.inner("size");
    side = size.pixels("height");
    if (size.keys().join() !== "height,width" || size.pixels("width") !== side) {
      throw fields.wrong("size", "an object of height and width, the same, the side of a tile");
    }
  }
  const most = fields.has("max_image_tiles") ? fields.pixels("max_image_tiles") : 4;
  return {
    kind: defaults.kind,
    resize: { to: { height: side, width: side }, filter: filterOf(fields, RESAMPLE) },
    canvas: { side, most },
    ...colourSettings(fields, defaults),
  };
}
