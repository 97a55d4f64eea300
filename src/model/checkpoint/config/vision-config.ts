import { CheckpointError } from "../../../errors.ts";
import { ConfigReader, type JsonObject } from "../json/config-reader.ts";
import { activationKind } from "./activation-kind.ts";
import { type EncoderConfig, requireWholeHeads } from "./encoder-config.ts";
import { requireNeutral } from "./neutral-fields.ts";
import type { TowerConfig, VisionSetup } from "./vision-setup.ts";

/** A vision transformer over squares of one size: CLIP's, SigLIP's, InternVL's or BLIP-2's. */
export interface VisionConfig extends EncoderConfig, TowerConfig {
  readonly kind: "clip" | "siglip" | "internvl" | "blip";
  /** Side of the square picture and of a patch, in pixels. */
  readonly imageSize: number;
  readonly patchSize: number;
  readonly channels: number;
  /** Patches take learned positions by the fraction of the way that they are along the sides (Idefics3). */
  readonly fractionalPlaces?: boolean;
}

interface VisionDefaults extends JsonObject {
  readonly hidden_act: string;
  readonly layer_norm_eps: number;
}

/** Where a vision_config is silent: Hugging Face's CLIPVisionConfig and SiglipVisionConfig (both base, patch 32 / 16). */
export const VISION_TOWER_DEFAULTS: Readonly<Record<"clip" | "siglip", VisionDefaults>> = {
  clip: {
    hidden_size: 768,
    intermediate_size: 3072,
    num_hidden_layers: 12,
    num_attention_heads: 12,
    num_channels: 3,
    image_size: 224,
    patch_size: 32,
    hidden_act: "quick_gelu",
    layer_norm_eps: 1e-5,
  },
  siglip: {
    hidden_size: 768,
    intermediate_size: 3072,
    num_hidden_layers: 12,
    num_attention_heads: 12,
    num_channels: 3,
    image_size: 224,
    patch_size: 16,
    hidden_act: "gelu_pytorch_tanh",
    layer_norm_eps: 1e-6,
  },
};

/** How a model with a CLIP or SigLIP tower takes pictures in. */
export type SquareVisionSetup = VisionSetup<VisionConfig>;

/** Reads a vision_config. Throws CheckpointError for other kinds of tower and for sizes that make no sense. */
export function readVisionConfig(values: JsonObject, where: string): VisionConfig {
  const type = values["model_type"];
  const kind =
    type === "clip_vision_model" || type === "clip"
      ? "clip"
      : type === "siglip_vision_model" || type === "siglip"
        ? "siglip"
        : undefined;
  if (!kind) {
    throw new CheckpointError(
      `${where}: vision towers of model_type ${JSON.stringify(type)} are not supported; supported are clip_vision_model, siglip_vision_model`,
    );
  }
  requireNeutral(values, where);
  const c = new ConfigReader({ ...VISION_TOWER_DEFAULTS[kind], ...values }, where);
  const config: VisionConfig = {
    kind,
    layers: c.count("num_hidden_layers"),
    width: c.count("hidden_size"),
    heads: c.count("num_attention_heads"),
    mlpWidth: c.count("intermediate_size"),
    normEps: c.number("layer_norm_eps"),
    activation: activationKind(c.string("hidden_act"), where),
    imageSize: c.count("image_size"),
    patchSize: c.count("patch_size"),
    channels: c.count("num_channels"),
  };
  requireWholeHeads(config, where);
  return config;
}

/** Patches along one side of the picture. */
export function patchesPerSide({ imageSize, patchSize }: VisionConfig): number {
  return Math.floor(imageSize / patchSize);
}

/** Rows that an image, or a tile of one, has in the tower: its patches, and where there is one the class token in front. */
export function rowsPerImage(config: VisionConfig): number {
  return patchesPerSide(config) ** 2 + (config.kind === "siglip" ? 0 : 1);
}
