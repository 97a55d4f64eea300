import { concat } from "../kernels/concat.ts";
import { cast } from "../kernels/copy.ts";
import { add } from "../kernels/elementwise.ts";
import { patchEmbedding } from "../kernels/patch-embedding.ts";
import { CheckpointError } from "../tensor/errors.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { activationKind } from "./activation-kind.ts";
import { ConfigReader, type JsonObject } from "./config.ts";
import {
  type EncoderConfig,
  type EncoderLayer,
  encoderLayer,
  type NormWeights,
  norm,
  readEncoderLayers,
  readNorm,
  requireWholeHeads,
} from "./encoder-layer.ts";
import { requireNeutral } from "./neutral-fields.ts";
import { full, type Pass } from "./pass.ts";
import { LAYER_SITES, type SiteName, type Walk } from "./sites.ts";
import type { Weights } from "./weights.ts";

/** A CLIP or SigLIP vision transformer. */
export interface VisionConfig extends EncoderConfig {
  readonly kind: "clip" | "siglip";
  /** Side of the square picture and of a patch, in pixels. */
  readonly imageSize: number;
  readonly patchSize: number;
  readonly channels: number;
}

interface VisionDefaults extends JsonObject {
  readonly hidden_act: string;
  readonly layer_norm_eps: number;
}

/** Where a vision_config is silent: Hugging Face's CLIPVisionConfig and SiglipVisionConfig (both base, patch 32 / 16). */
export const VISION_TOWER_DEFAULTS: Readonly<Record<VisionConfig["kind"], VisionDefaults>> = {
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

/** Rows that an image has in the tower: its patches, and CLIP's class token in front. */
export function rowsPerImage(config: VisionConfig): number {
  return patchesPerSide(config) ** 2 + (config.kind === "clip" ? 1 : 0);
}

export interface VisionTowerWeights {
  /** CLIP only: [width] */
  readonly classEmbedding: Tensor | undefined;
  /** [width, channels * patch * patch] */
  readonly patchWeight: Tensor;
  /** SigLIP only: [width] */
  readonly patchBias: Tensor | undefined;
  /** [rowsPerImage, width] */
  readonly positions: Tensor;
  /** CLIP only: the norm after the embeddings. */
  readonly preNorm: NormWeights | undefined;
  readonly layers: readonly EncoderLayer[];
  readonly postNorm: NormWeights;
}

/**
 * The vision transformers of CLIP (Radford et al. 2021, arXiv 2103.00020) and SigLIP (Zhai et al. 2023, arXiv
 * 2303.15343): patches, learned positions, pre-norm blocks with full attention.
 */
export class VisionTower {
  readonly config: VisionConfig;
  readonly #w: VisionTowerWeights;

  constructor(config: VisionConfig, weights: VisionTowerWeights) {
    this.config = config;
    this.#w = weights;
  }

  /**
   * pixels [images, 3, size, size] → [images * rowsPerImage, width]: the output of block `upTo` - 1, which is the stream
   * that enters block `upTo`. Later blocks run only if one of their sites is in use.
   */
  *stream(pixels: Tensor, pass: Pass, upTo = this.config.layers): Walk<Tensor> {
    const at = pass.sites();
    const embedded = yield* at.pass("vision.embed", this.#embed(pixels));
    let x = this.#w.preNorm ? norm(embedded, this.#w.preNorm, this.config) : embedded;
    let wanted = x;
    for (let index = 0; index < this.config.layers; index++) {
      if (index === upTo) wanted = x;
      if (index >= upTo && !this.#usedFrom(index, pass)) return wanted;
      x = yield* encoderLayer(this.#w.layers[index]!, x, this.config, index, full, pass);
    }
    return upTo === this.config.layers ? x : wanted;
  }

  /** The norm after the last block: [rows, width] → [rows, width]. CLIP applies it to the class token only. */
  postNorm(x: Tensor): Tensor {
    return norm(x, this.#w.postNorm, this.config);
  }

  #embed(pixels: Tensor): Tensor {
    const { classEmbedding, patchWeight, patchBias, positions } = this.#w;
    const { patchSize, width } = this.config;
    const images = pixels.dim(0);
    const patches = patchEmbedding(pixels, patchWeight, patchSize, { bias: patchBias });
    let rows = patches.reshape([images, patches.dim(0) / images, width]);
    if (classEmbedding) rows = concat([cast(classEmbedding, "f32").broadcastTo([images, 1, width]), rows], 1);
    return add(rows, positions).reshape([images * positions.dim(0), width]);
  }

  #usedFrom(layer: number, pass: Pass): boolean {
    for (let index = layer; index < this.config.layers; index++) {
      if (LAYER_SITES.some((site) => pass.inUse(`vision.${site}.${index}` satisfies SiteName))) return true;
    }
    return false;
  }
}

/** The tower's weights under `prefix` (`vision_tower.vision_model.`), in Hugging Face's names. */
export async function readVisionTower(
  w: Weights,
  config: VisionConfig,
  prefix: string,
): Promise<VisionTower> {
  const { kind, width, channels, patchSize } = config;
  const clip = kind === "clip";
  const embeddings = `${prefix}embeddings.`;
  const patchWeight = await w.tensor(`${embeddings}patch_embedding.weight`, [
    width,
    channels,
    patchSize,
    patchSize,
  ]);
  return new VisionTower(config, {
    classEmbedding: clip ? await w.tensor(`${embeddings}class_embedding`, [width]) : undefined,
    patchWeight: w.reshape(patchWeight, [width, channels * patchSize * patchSize]),
    patchBias: clip ? undefined : await w.tensor(`${embeddings}patch_embedding.bias`, [width]),
    positions: await w.tensor(`${embeddings}position_embedding.weight`, [rowsPerImage(config), width]),
    // "layrnorm" is how the checkpoints spell it.
    preNorm: clip ? await readNorm(w, `${prefix}pre_layrnorm`, width) : undefined,
    layers: await readEncoderLayers(w, prefix, config),
    postNorm: await readNorm(w, `${prefix}post_layernorm`, width),
  });
}
