import { CheckpointError, ImageError } from "../../../errors.ts";
import { viewSize } from "../../../images/preprocess.ts";
import type { NaflexProcessorSettings } from "../../../images/processors/naflex-processor-config.ts";
import { ConfigReader, type JsonObject } from "../json/config-reader.ts";
import { activationKind } from "./activation-kind.ts";
import { type EncoderConfig, requireWholeHeads } from "./encoder-config.ts";
import { requireNeutral } from "./neutral-fields.ts";
import type { ImageLayout, Picture, TowerConfig } from "./vision-setup.ts";

/** SigLIP 2's vision transformer over pictures of any size. */
export interface NaflexConfig extends EncoderConfig, TowerConfig {
  readonly kind: "siglip2";
  readonly patchSize: number;
  readonly channels: 3;
  /** Entries of the square table of positions. */
  readonly positions: number;
}

/** Where a vision_config is silent: Hugging Face's Siglip2VisionConfig. */
const DEFAULTS = {
  hidden_size: 768,
  intermediate_size: 3072,
  num_hidden_layers: 12,
  num_attention_heads: 12,
  num_channels: 3,
  num_patches: 256,
  patch_size: 16,
  hidden_act: "gelu_pytorch_tanh",
  layer_norm_eps: 1e-6,
};

/** Reads a vision_config. Throws CheckpointError for what makes no sense. */
export function readNaflexConfig(values: JsonObject, where: string): NaflexConfig {
  requireNeutral(values, where);
  const c = new ConfigReader({ ...DEFAULTS, ...values }, where);
  const channels = c.count("num_channels");
  if (channels !== 3) {
    throw new CheckpointError(`${where}: num_channels ${channels} is not supported; expected 3`);
  }
  const positions = c.count("num_patches");
  if (!Number.isInteger(Math.sqrt(positions))) {
    throw new CheckpointError(`${where}: expected num_patches to be a square, found ${positions}`);
  }
  const config: NaflexConfig = {
    kind: "siglip2",
    layers: c.count("num_hidden_layers"),
    width: c.count("hidden_size"),
    heads: c.count("num_attention_heads"),
    mlpWidth: c.count("intermediate_size"),
    normEps: c.number("layer_norm_eps"),
    activation: activationKind(c.string("hidden_act"), where),
    patchSize: c.count("patch_size"),
    channels,
    positions,
  };
  requireWholeHeads(config, where);
  return config;
}

/** Throws CheckpointError where a processor cuts other patches than its tower takes. */
export function requireSamePatchSize(
  { patches: { size } }: NaflexProcessorSettings,
  { patchSize }: NaflexConfig,
  where: string,
): void {
  if (size === patchSize) return;
  throw new CheckpointError(
    `${where}: expected an image processor whose patch_size is the tower's, ${patchSize}, found ${size}`,
  );
}

/** The patches of a picture, row by row. Throws ImageError for one that they do not fill. */
export function naflexLayout(picture: Picture, processor: NaflexProcessorSettings): ImageLayout {
  const { width, height } =
    "shape" in picture ? { width: picture.shape[2], height: picture.shape[1] } : viewSize(picture, processor);
  const { size } = processor.patches;
  if (width < 1 || height < 1 || width % size !== 0 || height % size !== 0) {
    throw new ImageError(
      `expected a picture whose sides are multiples of ${size} pixels for this vision tower, found ${width} x ${height}`,
    );
  }
  const grid = { rows: height / size, columns: width / size };
  const count = grid.rows * grid.columns;
  return { towerRows: count, tokens: count, grid };
}
