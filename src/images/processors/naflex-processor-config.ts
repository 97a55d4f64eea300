import {
  type ClassDefaults,
  classOf,
  colourSettings,
  filterOf,
  type PatchSizes,
  type ProcessorSettings,
  processorFields,
} from "./processor-config.ts";

/** Settings of a processor that makes patches of pictures of any size. */
export type NaflexProcessorSettings = ProcessorSettings & { readonly patches: PatchSizes };

const SIGLIP2: ClassDefaults = {
  kind: "siglip2",
  size: { mostPatches: 256, patch: 16 },
  mean: [0.5, 0.5, 0.5],
  std: [0.5, 0.5, 0.5],
};
const CLASSES = new Map([["Siglip2ImageProcessor", SIGLIP2]]);
/** Of the class, PIL's bilinear. */
const RESAMPLE = 2;

/**
 * Reads the settings of SigLIP 2's image processor for pictures of any size (NaFlex) as `readProcessorConfig` reads those of
 * others. Throws CheckpointError for other classes.
 */
export function readNaflexProcessor(json: unknown, name?: string): NaflexProcessorSettings {
  const fields = processorFields(json, name);
  const defaults = classOf(fields, CLASSES);
  const size = fields.has("patch_size") ? fields.pixels("patch_size") : 16;
  const mostPatches = fields.has("max_num_patches") ? fields.pixels("max_num_patches") : 256;
  return {
    kind: defaults.kind,
    ...(fields.flag("do_resize", true) && {
      resize: { to: { mostPatches, patch: size }, filter: filterOf(fields, RESAMPLE) },
    }),
    ...colourSettings(fields, defaults),
    patches: { size, merge: 1, frames: 1, channelsLast: true },
  };
}
