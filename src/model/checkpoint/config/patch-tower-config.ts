import { CheckpointError, ImageError } from "../../../errors.ts";
import { viewSize } from "../../../images/preprocess.ts";
import type { PatchSizes, ProcessorSettings } from "../../../images/processors/processor-config.ts";
import type { ActivationKind } from "../../../kernels/elementwise/activation.ts";
import { ConfigReader, type JsonObject } from "../json/config-reader.ts";
import { activationKind } from "./activation-kind.ts";
import { requireNeutral } from "./neutral-fields.ts";
import { ropeParameters } from "./rope-config.ts";
import type { Picture, TowerConfig } from "./vision-setup.ts";

/** A vision transformer over pictures of any size, of whose patches blocks become one feature each (Qwen2-VL). */
export interface PatchTowerConfig extends TowerConfig {
  readonly patches: PatchSizes;
  /** Base of the rotary frequencies. */
  readonly theta: number;
  readonly activation: ActivationKind;
  /** Of the features. */
  readonly outWidth: number;
}

/** What a family calls the fields, and what its config class has where they are silent. */
export interface PatchTowerFields {
  /** The model_type is this or, as transformers 5 writes it, `<kind>_vision`. */
  readonly kind: string;
  readonly defaults: JsonObject;
  readonly width: string;
  readonly outWidth: string;
  mlpWidth(c: ConfigReader, width: number): number;
}

/** Reads a vision_config. Throws CheckpointError for what is not supported, by the field's name. */
export function readPatchTower(
  values: JsonObject,
  { kind, defaults, ...fields }: PatchTowerFields,
  where: string,
): PatchTowerConfig {
  requireNeutral(values, where);
  const c = new ConfigReader({ ...defaults, ...values }, where);
  const type = c.string("model_type", `${kind}_vision`);
  if (type !== kind && type !== `${kind}_vision`) {
    throw new CheckpointError(
      `${where}: vision towers of model_type ${JSON.stringify(type)} are not supported; supported is ${kind}_vision`,
    );
  }
  const width = c.count(fields.width);
  const heads = other(values, c, "num_heads", "num_attention_heads", where);
  const headDim = c.has("head_dim") ? c.count("head_dim") : width / heads;
  // Half of a head turns with the row and half with the column, each in pairs.
  if (headDim * heads !== width || headDim % 4 !== 0) {
    throw new CheckpointError(
      `${where}: a width (${fields.width}) of ${width} does not divide into ${heads} heads (num_heads) of a multiple of 4 ` +
        `each, found ${headDim} (head_dim)`,
    );
  }
  const channels = c.count("in_channels");
  if (channels !== 3) {
    throw new CheckpointError(`${where}: in_channels ${channels} is not supported; expected 3`);
  }
  for (const key of ["rope_scaling", "rope_parameters"]) c.object(key); // nothing else
  const rope = new ConfigReader(ropeParameters(values), `${where}: rope_parameters`);
  const ropeType = rope.string("rope_type");
  if (ropeType !== "axial" && ropeType !== "default") {
    throw new CheckpointError(
      `${where}: RoPE (rope_type) ${JSON.stringify(ropeType)} is not supported; supported is axial`,
    );
  }
  const patchSize = c.count("patch_size");
  return {
    kind,
    layers: other(values, c, "depth", "num_hidden_layers", where),
    width,
    heads,
    mlpWidth: fields.mlpWidth(c, width),
    patchSize,
    patches: {
      size: patchSize,
      merge: c.count("spatial_merge_size"),
      frames: c.count("temporal_patch_size"),
    },
    theta: rope.positive("rope_theta"),
    activation: activationKind(c.string("hidden_act"), where),
    outWidth: c.count(fields.outWidth),
  };
}

/** A count that has two names. Throws CheckpointError where both are there and differ. */
function other(values: JsonObject, c: ConfigReader, name: string, alias: string, where: string): number {
  if (!c.has(alias)) return c.count(name);
  const count = c.count(alias);
  if (name in values && c.count(name) !== count) {
    throw new CheckpointError(`${where}: ${name} is ${c.count(name)}, but ${alias} ${count}`);
  }
  return count;
}

/** Throws CheckpointError where a processor cuts other patches than its tower takes. */
export function requireSamePatches(
  { patches }: ProcessorSettings,
  { patches: tower }: PatchTowerConfig,
  where: string,
): void {
  if (!patches) {
    throw new CheckpointError(`${where}: expected an image processor of class Qwen2VLImageProcessor`);
  }
  for (const [key, field, name] of [
    ["size", "patch_size", "patch_size"],
    ["merge", "spatial_merge_size", "merge_size"],
    ["frames", "temporal_patch_size", "temporal_patch_size"],
  ] as const) {
    if (patches[key] === tower[key]) continue;
    throw new CheckpointError(
      `${where}: expected an image processor whose ${name} is the tower's ${field}, ${tower[key]}, found ${patches[key]}`,
    );
  }
}

/** The blocks of a picture's patches, row by row: a feature each. Throws ImageError for a picture that they do not fill. */
export function blockGrid(
  picture: Picture,
  processor: ProcessorSettings,
  { patches: { size, merge } }: PatchTowerConfig,
): { rows: number; columns: number } {
  const { width, height } =
    "shape" in picture ? { width: picture.shape[2], height: picture.shape[1] } : viewSize(picture, processor);
  const side = size * merge;
  if (width < 1 || height < 1 || width % side !== 0 || height % side !== 0) {
    throw new ImageError(
      `expected a picture whose sides are multiples of ${side} pixels for this vision tower, found ${width} x ${height}`,
    );
  }
  return { rows: height / side, columns: width / side };
}
