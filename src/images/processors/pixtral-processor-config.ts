import {
  CLIP,
  classOf,
  colourSettings,
  filterOf,
  type ProcessorSettings,
  processorFields,
  type Size,
} from "./processor-config.ts";
import type { Fields } from "./processor-fields.ts";

const CLASSES = new Map([["PixtralImageProcessor", { ...CLIP, kind: "pixtral" as const }]]);

/**
 * Reads the settings of Pixtral's image processor as `readProcessorConfig` reads those of others. Sides of patches are not taken from
 * it but from `patch`, which its processor hands it. Throws CheckpointError for other classes.
 */
export function readPixtralProcessor(
  json: unknown,
  patch: number,
  name?: string,
): ProcessorSettings & { readonly resize: NonNullable<ProcessorSettings["resize"]> } {
  const fields = processorFields(json, name);
  const defaults = classOf(fields, CLASSES);
  // Patches have to be whole, and a crop has no size by default.
  if (!fields.flag("do_resize", true)) throw fields.wrong("do_resize", "true");
  if (fields.flag("do_center_crop", false)) throw fields.wrong("do_center_crop", "false");
  fields.flag("do_pad", true); // Pictures are padded to the largest of a batch, and cut back.
  return {
    kind: defaults.kind,
    resize: { to: { mostSides: mostSides(fields), multiple: patch }, filter: filterOf(fields) },
    ...colourSettings(fields, defaults),
  };
}

function mostSides(fields: Fields): Size {
  if (!fields.has("size")) return { height: 1024, width: 1024 };
  const size = fields.inner("size");
  switch (size.keys().join()) {
    case "longest_edge": {
      const edge = size.pixels("longest_edge");
      return { height: edge, width: edge };
    }
    case "height,width":
      return { height: size.pixels("height"), width: size.pixels("width") };
    default:
      throw fields.wrong("size", "an object of longest_edge; or height, width");
  }
}
