import type { CanvasSettings } from "../canvas-tiles.ts";
import type { MostPatches } from "../most-patches.ts";
import type { ResizeFilter } from "../resize.ts";
import type { PixelBounds } from "../smart-resize.ts";
import type { TileGridSettings } from "../tile-grid.ts";
import type { TileSettings } from "../tiles.ts";
import { Fields } from "./processor-fields.ts";

export interface Size {
  readonly height: number;
  readonly width: number;
}

/**
 * An exact size; or the length of the shorter edge, less where the longer one would be too long; or the size to fit into.
 * These two keep the proportions, and bounds for the number of pixels do so nearly. Bounds for edges do not: no edge is longer
 * than the one, which keeps the proportions, and then none shorter than the other.
 */
export type ResizeTarget =
  | Size
  | { readonly shortestEdge: number; readonly longestEdge?: number }
  | { readonly maxHeight: number; readonly maxWidth: number; readonly onlyShrinks?: true }
  | { readonly longestEdge: number; readonly leastEdge: number }
  | PixelBounds
  | MostPatches
  | SideBounds;

/** No side longer than these, which keeps the proportions, and then each side up to a multiple of `multiple` (Pixtral). */
interface SideBounds {
  readonly mostSides: Size;
  readonly multiple: number;
}

/** Patches of which blocks of `merge` by `merge` become one feature each. */
export interface PatchSizes {
  /** Side of a patch in pixels. */
  readonly size: number;
  /** Side of a block in patches. */
  readonly merge: number;
  /** Frames of a patch; a picture is repeated for each. */
  readonly frames: number;
  /** Whether the three channels of a pixel lie together; else each channel of a patch (default). */
  readonly channelsLast?: boolean;
}

/** One number per channel: red, green, blue. */
export type Channels = readonly [number, number, number];

/** How a checkpoint wants its pictures, every default filled in. The steps happen in this order. */
export interface ProcessorSettings {
  readonly kind:
    | "clip"
    | "gemma3"
    | "fuyu"
    | "llava"
    | "siglip"
    | "siglip2"
    | "idefics"
    | "idefics2"
    | "idefics3"
    | "internvl"
    | "llava_next"
    | "mllama"
    | "pixtral"
    | "llava_onevision"
    | "qwen2_vl"
    | "blip";
  /** Transparency is left out of account, and not laid over white. */
  readonly opaque?: boolean;
  /** Pad to a square with this 8-bit colour. */
  readonly padColour?: Channels;
  readonly resize?: { readonly to: ResizeTarget; readonly filter: ResizeFilter };
  /** Set where pictures are cut into tiles; `resize` is then to one tile. */
  readonly tiles?: TileSettings;
  /** Set where pictures are cut into a grid of tiles that stand by themselves; `resize` is then to one tile. */
  readonly grid?: TileGridSettings;
  /** Set where the quarters of a picture go in front of it, each like a picture of its own (Idefics 2's image splitting). */
  readonly quarters?: boolean;
  /** Fill up to the right and below, with an 8-bit colour, until whole patches of so many pixels a side lie over the picture. */
  readonly fillPatches?: { readonly side: number; readonly most: Size; readonly colour: Channels };
  /** Set where pictures are laid on canvases of tiles; `resize` is then to one tile. */
  readonly canvas?: CanvasSettings;
  /** Cut this size out of the middle; what lies outside of the picture is black. */
  readonly crop?: Size;
  /** The 8-bit values are multiplied by this. */
  readonly scale: number;
  /** Then every value becomes (value - mean) / std. */
  readonly normalize?: { readonly mean: Channels; readonly std: Channels };
  /** Where pictures of different sizes are cut into patches. */
  readonly patches?: PatchSizes;
}

/** What a transformers class assumes where its config is silent. */
export interface ClassDefaults {
  readonly kind: ProcessorSettings["kind"];
  readonly size: ResizeTarget;
  /** Absent in a class that crops only where its config says so, and how. */
  readonly crop?: Size | undefined;
  readonly mean: Channels;
  readonly std: Channels;
  /** PIL's number of its filter. Default 3, bicubic. */
  readonly resample?: number;
  /** It does not crop, whatever its config says. */
  readonly neverCrops?: boolean;
  /** What a `size` of one number is, where the config does not say: a square, or (default) the shorter edge. */
  readonly square?: boolean;
}

export const CLIP: ClassDefaults = {
  kind: "clip",
  size: { shortestEdge: 224 },
  crop: { height: 224, width: 224 },
  mean: [0.48145466, 0.4578275, 0.40821073],
  std: [0.26862954, 0.26130258, 0.27577711],
};

const CLASSES: ReadonlyMap<string, ClassDefaults> = new Map([
  ["CLIPImageProcessor", CLIP],
  ["CLIPFeatureExtractor", CLIP],
  ["LlavaImageProcessor", { ...CLIP, kind: "llava" }],
  [
    "SiglipImageProcessor",
    { kind: "siglip", size: { height: 224, width: 224 }, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5] },
  ],
  [
    "BlipImageProcessor",
    { ...CLIP, kind: "blip", size: { height: 384, width: 384 }, crop: undefined, square: true },
  ],
  [
    "IdeficsImageProcessor",
    { kind: "idefics", size: { height: 224, width: 224 }, mean: CLIP.mean, std: CLIP.std },
  ],
  [
    "Gemma3ImageProcessor",
    {
      kind: "gemma3",
      size: { height: 224, width: 224 },
      mean: [0.5, 0.5, 0.5],
      std: [0.5, 0.5, 0.5],
      resample: 2,
      neverCrops: true,
    },
  ],
  [
    "Qwen2VLImageProcessor",
    {
      kind: "qwen2_vl",
      size: { minPixels: 56 * 56, maxPixels: 28 * 28 * 1280, multiple: 28 },
      mean: CLIP.mean,
      std: CLIP.std,
      neverCrops: true,
    },
  ],
]);

/** PIL's numbers for its filters, as configs write them. */
const FILTERS: readonly ResizeFilter[] = ["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"];

/**
 * Reads the parsed contents of a preprocessor_config.json, or of a processor_config.json that has an `image_processor`:
 * the CLIP, LLaVA, SigLIP, BLIP, Gemma 3, Idefics and Qwen2-VL classes of transformers under all their names (…Fast, …FeatureExtractor), sizes in all
 * spellings. Fields mean what they mean to transformers 5; flags that are null are off, other fields that are null have
 * the default of their class. `name` is the file, for messages.
 *
 * Throws CheckpointError for other classes, for values that are not what their key asks for, and for steps that would need
 * more than one picture at a time.
 */
export function readProcessorConfig(json: unknown, name?: string): ProcessorSettings {
  const fields = processorFields(json, name);
  const defaults = classOf(fields, CLASSES);
  const colours = colourSettings(fields, defaults);
  const pads = fields.flag("do_pad", false);
  if (defaults.kind === "gemma3" && fields.flag("do_pan_and_scan", false)) {
    throw fields.wrong(
      "do_pan_and_scan",
      "false (pictures with crops of them beside, pan and scan, are not supported)",
    );
  }
  const patches = defaults.kind === "qwen2_vl" ? patchSizes(fields) : undefined;
  const resize = fields.flag("do_resize", true)
    ? {
        to: patches ? pixelBounds(fields, defaults.size, patches) : resizeTarget(fields, defaults),
        filter: filterOf(fields, defaults.resample),
      }
    : undefined;
  const crop =
    !defaults.neverCrops && fields.flag("do_center_crop", defaults.crop !== undefined)
      ? cropSize(fields, defaults.crop)
      : undefined;
  if (pads && defaults.kind !== "llava") checkPadding(fields, resize?.to, crop);
  return {
    kind: defaults.kind,
    padColour:
      pads && defaults.kind === "llava" ? asBytes(fields.channels("image_mean") ?? defaults.mean) : undefined,
    resize,
    crop,
    ...colours,
    ...(patches && { patches }),
  };
}

/** The fields of the image processor. */
export function processorFields(json: unknown, name?: string): Fields {
  const nested = typeof json === "object" && json !== null && "image_processor" in json;
  const outer = new Fields(json, name ?? (nested ? "processor_config.json" : "preprocessor_config.json"));
  return outer.has("image_processor") ? outer.inner("image_processor") : outer;
}

/** What becomes of the 8-bit values. */
export function colourSettings(
  fields: Fields,
  defaults: ClassDefaults,
): Pick<ProcessorSettings, "scale" | "normalize"> {
  const mean = fields.channels("image_mean") ?? defaults.mean;
  const std = fields.channels("image_std") ?? defaults.std;
  if (std.includes(0)) throw fields.wrong("image_std", "numbers other than 0");
  fields.flag("do_convert_rgb", true); // Pictures are RGB already; transformers needs them to be.
  return {
    scale: fields.flag("do_rescale", true) ? (fields.number("rescale_factor") ?? 1 / 255) : 1,
    normalize: fields.flag("do_normalize", true) ? { mean, std } : undefined,
  };
}

function patchSizes(fields: Fields): PatchSizes {
  const sizeOf = (key: string, fallback: number) => (fields.has(key) ? fields.pixels(key) : fallback);
  return {
    size: sizeOf("patch_size", 14),
    merge: sizeOf("merge_size", 2),
    frames: sizeOf("temporal_patch_size", 2),
  };
}

/** `size`, in which edges are numbers of pixels, and over it `min_pixels` and `max_pixels`. */
function pixelBounds(
  fields: Fields,
  fallback: ResizeTarget,
  { size: patch, merge }: PatchSizes,
): PixelBounds {
  const multiple = patch * merge;
  const bound = (key: string) => (fields.has(key) ? fields.pixels(key) : undefined);
  const [least, most] = [bound("min_pixels"), bound("max_pixels")];
  if (!fields.has("size")) {
    const { minPixels, maxPixels } = fallback as PixelBounds;
    return { minPixels: least ?? minPixels, maxPixels: most ?? maxPixels, multiple };
  }
  const size = fields.inner("size");
  // Left over from older versions where both stand beside it, which count.
  const keys = size
    .keys()
    .filter((key) => !(least && key === "min_pixels") && !(most && key === "max_pixels"));
  if (keys.some((key) => key !== "shortest_edge" && key !== "longest_edge")) {
    throw fields.wrong("size", "an object of longest_edge, shortest_edge (numbers of pixels)");
  }
  return {
    minPixels: least ?? size.pixels("shortest_edge"),
    maxPixels: most ?? size.pixels("longest_edge"),
    multiple,
  };
}

export const asBytes = ([r, g, b]: Channels): Channels => [
  Math.trunc(r * 255),
  Math.trunc(g * 255),
  Math.trunc(b * 255),
];

/** Throws CheckpointError for a class that is none of these. */
export function classOf<T>(fields: Fields, classes: ReadonlyMap<string, T>): T {
  const key = fields.has("image_processor_type") ? "image_processor_type" : "feature_extractor_type";
  const found = fields.value(key);
  const defaults = typeof found === "string" ? classes.get(found.replace(/(Fast|Pil)$/, "")) : undefined;
  if (!defaults) throw fields.wrong(key, `one of ${[...classes.keys()].join(", ")}`);
  return defaults;
}

/** `fallback` is PIL's number of the filter of the class. */
export function filterOf(fields: Fields, fallback = 3): ResizeFilter {
  const filter = FILTERS[fields.number("resample") ?? fallback];
  if (!filter) {
    const names = FILTERS.map((name, number) => `${number} (${name})`);
    throw fields.wrong("resample", `one of ${names.join(", ")}`);
  }
  return filter;
}

/** The sizes that transformers knows, by their keys. */
const SIZES = ["height, width", "shortest_edge", "longest_edge, shortest_edge", "max_height, max_width"];

export function resizeTarget(fields: Fields, defaults: ClassDefaults): ResizeTarget {
  // Of CLIP's class alone, for the sake of KOSMOS-2; it overrides the size.
  if (defaults.kind === "clip" && fields.flag("use_square_size", false)) return { height: 224, width: 224 };
  // Of Idefics' class alone; it overrides the size.
  if (defaults.kind === "idefics" && fields.has("image_size")) {
    const edge = fields.pixels("image_size");
    return { height: edge, width: edge };
  }
  const value = fields.value("size");
  if (value === undefined) return defaults.size;
  if (typeof value === "number") {
    const edge = fields.pixels("size");
    return fields.flag("default_to_square", defaults.square ?? false)
      ? { height: edge, width: edge }
      : { shortestEdge: edge };
  }
  if (Array.isArray(value)) return fields.heightAndWidth("size");
  const size = fields.inner("size");
  switch (size.keys().join(", ")) {
    case "height, width":
      return { height: size.pixels("height"), width: size.pixels("width") };
    case "shortest_edge":
      return { shortestEdge: size.pixels("shortest_edge") };
    case "longest_edge, shortest_edge":
      return { shortestEdge: size.pixels("shortest_edge"), longestEdge: size.pixels("longest_edge") };
    case "max_height, max_width":
      return { maxHeight: size.pixels("max_height"), maxWidth: size.pixels("max_width") };
    default:
      throw fields.wrong("size", `a number, [height, width] or an object of ${SIZES.join("; or ")}`);
  }
}

export function cropSize(fields: Fields, fallback: Size | undefined): Size {
  const value = fields.value("crop_size");
  if (value === undefined) {
    if (fallback) return fallback;
    throw fields.wrong("crop_size", "a size, since do_center_crop is true");
  }
  if (typeof value === "number") {
    const edge = fields.pixels("crop_size");
    return { height: edge, width: edge };
  }
  if (Array.isArray(value)) return fields.heightAndWidth("crop_size");
  const size = fields.inner("crop_size");
  if (size.keys().join(", ") !== "height, width") {
    throw fields.wrong("crop_size", "a number, [height, width] or an object of height, width");
  }
  return { height: size.pixels("height"), width: size.pixels("width") };
}

/** CLIP and SigLIP pad the normalised pictures of a batch to one size; of pictures that all have one, nothing is to do. */
function checkPadding(fields: Fields, resized: ResizeTarget | undefined, crop: Size | undefined): void {
  if (fields.has("pad_size")) throw fields.wrong("pad_size", "absent (padding to it is not supported)");
  if (!crop && !(resized && "height" in resized)) {
    throw fields.wrong(
      "do_pad",
      "false where pictures are neither cropped nor resized to a height and width",
    );
  }
}
