import { CheckpointError } from "../tensor/errors.ts";
import type { ResizeFilter } from "./resize.ts";

export interface Size {
  readonly height: number;
  readonly width: number;
}

/** An exact size, or the length of the shorter edge, the proportions being kept. */
export type ResizeTarget = Size | { readonly shortestEdge: number };

/** One number per channel: red, green, blue. */
export type Channels = readonly [number, number, number];

/** How a checkpoint wants its pictures, every default filled in. The steps happen in this order. */
export interface ProcessorSettings {
  readonly kind: "clip" | "llava" | "siglip";
  /** Pad to a square with this 8-bit colour. */
  readonly padColour?: Channels;
  readonly resize?: { readonly to: ResizeTarget; readonly filter: ResizeFilter };
  /** Cut this size out of the middle; what lies outside of the picture is black. */
  readonly crop?: Size;
  /** The 8-bit values are multiplied by this. */
  readonly scale: number;
  /** Then every value becomes (value - mean) / std. */
  readonly normalize?: { readonly mean: Channels; readonly std: Channels };
}

/** What a transformers class assumes where its config is silent. */
interface ClassDefaults {
  readonly kind: ProcessorSettings["kind"];
  readonly size: ResizeTarget;
  /** Absent in a class that never crops, whatever its config says. */
  readonly crop?: Size;
  readonly mean: Channels;
  readonly std: Channels;
}

const CLIP: ClassDefaults = {
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
]);

/** PIL's numbers for its filters, as configs write them. */
const FILTERS: Record<number, ResizeFilter> = { 0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic" };

/**
 * Reads the parsed contents of a preprocessor_config.json, or of a processor_config.json that has an `image_processor`:
 * the CLIP, LLaVA and SigLIP classes of transformers under all their names (…Fast, …FeatureExtractor), old spellings
 * with plain numbers for sizes included. `name` is the file, for messages.
 *
 * Throws CheckpointError for other classes, and for values that are not what their key asks for.
 */
export function readProcessorConfig(json: unknown, name = "preprocessor_config.json"): ProcessorSettings {
  const outer = new Fields(json, name);
  const fields = outer.has("image_processor") ? outer.inner("image_processor") : outer;
  const defaults = classOf(fields);

  const mean = fields.channels("image_mean") ?? defaults.mean;
  const std = fields.channels("image_std") ?? defaults.std;
  if (std.includes(0)) throw fields.wrong("image_std", "numbers other than 0");
  const pads = defaults.kind === "llava" && fields.flag("do_pad", false);
  const crops = defaults.crop && fields.flag("do_center_crop", true);
  return {
    kind: defaults.kind,
    padColour: pads
      ? [Math.trunc(mean[0] * 255), Math.trunc(mean[1] * 255), Math.trunc(mean[2] * 255)]
      : undefined,
    resize: fields.flag("do_resize", true)
      ? { to: resizeTarget(fields, defaults), filter: filterOf(fields) }
      : undefined,
    crop: crops ? cropSize(fields, defaults.crop) : undefined,
    scale: fields.flag("do_rescale", true) ? (fields.number("rescale_factor") ?? 1 / 255) : 1,
    normalize: fields.flag("do_normalize", true) ? { mean, std } : undefined,
  };
}

function classOf(fields: Fields): ClassDefaults {
  const key = fields.has("image_processor_type") ? "image_processor_type" : "feature_extractor_type";
  const found = fields.value(key);
  const defaults = typeof found === "string" ? CLASSES.get(found.replace(/(Fast|Pil)$/, "")) : undefined;
  if (!defaults) throw fields.wrong(key, `one of ${[...CLASSES.keys()].join(", ")}`);
  return defaults;
}

function filterOf(fields: Fields): ResizeFilter {
  const filter = FILTERS[fields.number("resample") ?? 3];
  if (!filter) throw fields.wrong("resample", "0 (nearest), 1 (lanczos), 2 (bilinear) or 3 (bicubic)");
  return filter;
}

function resizeTarget(fields: Fields, defaults: ClassDefaults): ResizeTarget {
  if (!fields.has("size")) return defaults.size;
  const keepsProportions = "shortestEdge" in defaults.size;
  if (typeof fields.value("size") === "number") {
    const edge = fields.pixels("size");
    return keepsProportions ? { shortestEdge: edge } : { height: edge, width: edge };
  }
  const size = fields.inner("size");
  if (keepsProportions && size.has("shortest_edge")) return { shortestEdge: size.pixels("shortest_edge") };
  return { height: size.pixels("height"), width: size.pixels("width") };
}

function cropSize(fields: Fields, fallback: Size): Size {
  if (!fields.has("crop_size")) return fallback;
  if (typeof fields.value("crop_size") === "number") {
    const edge = fields.pixels("crop_size");
    return { height: edge, width: edge };
  }
  const size = fields.inner("crop_size");
  return { height: size.pixels("height"), width: size.pixels("width") };
}

/** Checked access to a JSON object; null counts as absent. */
class Fields {
  private readonly fields: Record<string, unknown>;
  private readonly name: string;

  constructor(json: unknown, name: string) {
    if (typeof json !== "object" || json === null || Array.isArray(json)) {
      throw new CheckpointError(`${name}: expected an object, found ${JSON.stringify(json)}`);
    }
    this.fields = json as Record<string, unknown>;
    this.name = name;
  }

  value(key: string): unknown {
    return Object.hasOwn(this.fields, key) ? (this.fields[key] ?? undefined) : undefined;
  }

  has(key: string): boolean {
    return this.value(key) !== undefined;
  }

  inner(key: string): Fields {
    return new Fields(this.value(key), `${this.name}: ${key}`);
  }

  flag(key: string, fallback: boolean): boolean {
    const value = this.value(key) ?? fallback;
    if (typeof value !== "boolean") throw this.wrong(key, "true or false");
    return value;
  }

  number(key: string): number | undefined {
    const value = this.value(key);
    if (value !== undefined && typeof value !== "number") throw this.wrong(key, "a number");
    return value;
  }

  /** A length in pixels. */
  pixels(key: string): number {
    const value = this.value(key);
    if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 1) {
      throw this.wrong(key, "a positive whole number of pixels");
    }
    return value;
  }

  /** Three numbers, or one for all channels. */
  channels(key: string): Channels | undefined {
    const value = this.value(key);
    if (value === undefined) return undefined;
    if (typeof value === "number") return [value, value, value];
    if (Array.isArray(value) && value.length === 3 && value.every((v) => typeof v === "number")) {
      return value as [number, number, number];
    }
    throw this.wrong(key, "a number or three");
  }

  wrong(key: string, expected: string): CheckpointError {
    const found = JSON.stringify(this.value(key)) ?? "nothing";
    return new CheckpointError(`${this.name}: expected ${key} to be ${expected}, found ${found}`);
  }
}
