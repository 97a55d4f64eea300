import {
  type Channels,
  type ClassDefaults,
  classOf,
  colourSettings,
  filterOf,
  type ProcessorSettings,
  processorFields,
  type Size,
} from "./processor-config.ts";
import type { Fields } from "./processor-fields.ts";

const HALF: Channels = [0.5, 0.5, 0.5];
const CLASSES: ReadonlyMap<string, ClassDefaults> = new Map([
  ["FuyuImageProcessor", { kind: "fuyu", size: { height: 1080, width: 1920 }, mean: HALF, std: HALF }],
]);
/** PIL's number of the filter of the class. */
const BILINEAR = 2;

/**
 * Reads the settings of Fuyu's image processor as `readProcessorConfig` reads those of others: pictures that are too large are
 * shrunk, and filled up to whole patches. Throws CheckpointError for what makes pictures of other sizes.
 */
export function readFuyuProcessorConfig(
  json: unknown,
  name?: string,
): ProcessorSettings & Required<Pick<ProcessorSettings, "fillPatches">> {
  const fields = processorFields(json, name);
  const defaults = classOf(fields, CLASSES);
  for (const flag of ["do_resize", "do_pad"]) {
    if (!fields.flag(flag, true)) throw fields.wrong(flag, "true, as Fuyu's pictures need it");
  }
  const mode = fields.value("padding_mode") ?? "constant";
  if (mode !== "constant") throw fields.wrong("padding_mode", '"constant"');
  const padding = fields.number("padding_value") ?? 1;
  if (!Number.isInteger(padding) || padding < 0 || padding > 255) {
    throw fields.wrong("padding_value", "a whole number from 0 to 255");
  }
  const most = sizeOf(fields, "size", defaults.size as Size);
  const patch = sizeOf(fields, "patch_size", { height: 30, width: 30 });
  if (patch.height !== patch.width) throw fields.wrong("patch_size", "a square");
  return {
    kind: defaults.kind,
    resize: {
      to: { maxHeight: most.height, maxWidth: most.width, onlyShrinks: true },
      filter: filterOf(fields, BILINEAR),
    },
    fillPatches: { side: patch.height, most, colour: [padding, padding, padding] },
    ...colourSettings(fields, defaults),
  };
}

function sizeOf(fields: Fields, key: string, fallback: Size): Size {
  if (!fields.has(key)) return fallback;
  const value = fields.value(key);
  if (typeof value !== "object" || Array.isArray(value)) throw fields.wrong(key, "a height and a width");
  const inner = fields.inner(key);
  if (inner.keys().join(", ") !== "height, width") throw fields.wrong(key, "a height and a width");
  return { height: inner.pixels("height"), width: inner.pixels("width") };
}
