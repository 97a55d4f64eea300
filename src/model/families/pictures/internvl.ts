import { CheckpointError, PromptError } from "../../../errors.ts";
import { readInternVlProcessor } from "../../../images/processors/grid-processor-config.ts";
import { activation } from "../../../kernels/elementwise/activation.ts";
import { activationKind } from "../../checkpoint/config/activation-kind.ts";
import type { DecoderConfig } from "../../checkpoint/config/decoder-config.ts";
import { requireWholeHeads } from "../../checkpoint/config/encoder-config.ts";
import { requireNeutral } from "../../checkpoint/config/neutral-fields.ts";
import { ConfigReader, type JsonObject } from "../../checkpoint/json/config-reader.ts";
import { ImageDecoder } from "../../layers/bridges/image-decoder.ts";
import { readLayerNorm } from "../../layers/norm.ts";
import { type InternVlTowerConfig, readInternVlTower } from "../../layers/towers/internvl-tower.ts";
import type { Family, FamilyFiles, TextFamily } from "../family.ts";
import { llama } from "../text/llama.ts";
import { qwen2 } from "../text/qwen2.ts";
import { qwen3 } from "../text/qwen3.ts";
import { partNames, readImageToken, requirePreprocessor } from "./parts/llava-parts.ts";
import {
  checkTileTokens,
  gridsOf,
  innerDecoder,
  readInnerDecoder,
  type ShuffledSetup,
  shuffledFeatures,
  shuffledSetup,
} from "./parts/shuffled-tiles.ts";

interface InternVlConfig extends DecoderConfig {
  readonly vision: ShuffledSetup & { readonly tower: InternVlTowerConfig };
  /** Around the positions of a picture. */
  readonly start: string;
  readonly end: string;
}

const DECODERS: readonly [TextFamily, ...TextFamily[]] = [qwen2, llama, qwen3];

/** PyTorch's default, of the projector's norm. */
const PROJECTOR_EPS = 1e-5;

/** Values that Hugging Face's InternVLVisionConfig has where a vision_config is silent. */
const VISION_DEFAULTS = {
  hidden_size: 1024,
  num_hidden_layers: 24,
  num_attention_heads: 16,
  attention_bias: false,
  use_qk_norm: false,
  intermediate_size: 4096,
  hidden_act: "gelu",
  norm_type: "layer_norm",
  layer_norm_eps: 1e-6,
  image_size: 448,
  patch_size: 14,
  num_channels: 3,
  use_absolute_position_embeddings: true,
  use_mean_pooling: true,
};

function readTower(values: JsonObject, where: string): InternVlTowerConfig {
  requireNeutral(values, where);
  const c = new ConfigReader(
    {
      ...VISION_DEFAULTS,
      ...values,
      image_size: square(values["image_size"] ?? undefined),
      patch_size: square(values["patch_size"] ?? undefined),
    },
    where,
  );
  if (!c.boolean("use_absolute_position_embeddings")) {
    throw new CheckpointError(
      `${where}: use_absolute_position_embeddings false is not supported; expected true`,
    );
  }
  const norm = c.string("norm_type");
  if (norm !== "layer_norm" && norm !== "rms_norm") {
    throw new CheckpointError(
      `${where}: expected norm_type "layer_norm" or "rms_norm", found ${JSON.stringify(norm)}`,
    );
  }
  const config: InternVlTowerConfig = {
    kind: "internvl",
    layers: c.count("num_hidden_layers"),
    width: c.count("hidden_size"),
    heads: c.count("num_attention_heads"),
    mlpWidth: c.count("intermediate_size"),
    normEps: c.number("layer_norm_eps"),
    activation: activationKind(c.string("hidden_act"), where),
    imageSize: c.count("image_size", VISION_DEFAULTS.image_size),
    patchSize: c.count("patch_size", VISION_DEFAULTS.patch_size),
    channels: c.count("num_channels"),
    norm,
    qkNorm: c.boolean("use_qk_norm"),
    attentionBias: c.boolean("attention_bias"),
    postNorm: !c.boolean("use_mean_pooling"),
  };
  requireWholeHeads(config, where);
  return config;
}

/** Sizes may be written as a height and a width, which have to be one. */
function square(value: unknown): unknown {
  return Array.isArray(value) && value.length === 2 && value[0] === value[1] ? value[0] : value;
}

function readSetup(config: JsonObject, where: string, files: FamilyFiles): InternVlConfig["vision"] {
  const c = new ConfigReader(config, where);
  const tower = readTower(c.object("vision_config"), `${where}: vision_config`);
  const { layers } = tower;
  const layer = c.integer("vision_feature_layer", -1);
  const featureLayer = layer < 0 ? layers + 1 + layer : layer;
  if (featureLayer < 0 || featureLayer > layers) {
    throw new CheckpointError(`${where}: vision_feature_layer ${layer} does not exist in ${layers} layers`);
  }
  const strategy = c.string("vision_feature_select_strategy", "default");
  if (strategy !== "default") {
    throw new CheckpointError(
      `${where}: vision_feature_select_strategy ${JSON.stringify(strategy)} leaves no square of features; expected "default"`,
    );
  }
  const ratio = c.positive("downsample_ratio", 0.5);
  const shuffle = Math.round(1 / ratio);
  if (shuffle < 1 || 1 / shuffle !== ratio) {
    throw new CheckpointError(
      `${where}: expected downsample_ratio to be 1 by a whole number, found ${ratio}`,
    );
  }
  const setup = shuffledSetup(
    {
      tower,
      ...readImageToken(config, where, files, 151667),
      featureLayer,
      // Only where -1 asks for what the tower hands on.
      postNorm: tower.postNorm && layer === -1,
      shuffle,
    },
    readInternVlProcessor(requirePreprocessor(files, where)),
    { where, factor: "downsample_ratio" },
  );
  checkTileTokens(files.processor, "image_seq_length", setup, { where, factor: "downsample_ratio" });
  const video = files.specialTokens?.["video_token"];
  return {
    ...setup,
    tower,
    check({ ids }) {
      const id = video === undefined ? undefined : files.idOf(video);
      if (id === undefined || !ids.includes(id)) return;
      throw new PromptError(`Expected a prompt without videos, found ${video}.`);
    },
  };
}

/**
 * InternVL 2.5, 3 and 3.5 in the form of transformers (Chen et al. 2023, arXiv 2312.14238; Zhu et al. 2025, arXiv 2504.10479): squares
 * of a ViT's patches beside each other, projected by a two-layer MLP behind a norm, in a Qwen or Llama decoder. Pictures are cut
 * into tiles, all of which stand between two tokens of the prompt, the whole picture last.
 */
export const internvl: Family<InternVlConfig> = {
  modelType: "internvl",
  readConfig(config, where, files) {
    requireNeutral(config, where);
    const vision = readSetup(config, where, files);
    const named = files.specialTokens ?? {};
    const { start_image_token: start = "<img>", end_image_token: end = "</img>" } = named;
    for (const token of [start, end]) {
      if (files.idOf(token) !== undefined) continue;
      throw new CheckpointError(`${where}: the tokenizer beside it has no token ${token}`);
    }
    const context = named["context_image_token"] ?? vision.imageToken;
    if (context !== vision.imageToken) {
      throw new CheckpointError(
        `${where}: expected image_token_id to be the id of ${context}, ${files.idOf(context)}, found ${vision.imageTokenId}`,
      );
    }
    return { ...readInnerDecoder(config, where, files, DECODERS, true), vision, start, end };
  },
  imageRules: ({ vision, start, end }) => ({
    placeholder: vision.imageToken,
    expand: (picture) => ({
      text: `${start}${vision.imageToken.repeat(vision.layout(picture).tokens)}${end}`,
      ...gridsOf(vision, picture),
    }),
  }),
  async build(w, config, json) {
    const setup = config.vision;
    const { prefix, head, vision, projector } = partNames(w, {
      probe: "linear_1.weight",
      tower: "embeddings.cls_token",
    });
    const { family, text } = innerDecoder(json, "config.json", DECODERS);
    const decoder = await family.build(w, config, text, { prefix, head });
    const tower = await readInternVlTower(w, setup.tower, vision);
    const features = setup.tower.width * setup.shuffle ** 2;
    const norm = await readLayerNorm(w, `${projector}layer_norm`, features, PROJECTOR_EPS);
    const linear1 = await w.linear(`${projector}linear_1`, [config.width, features], true);
    const linear2 = await w.linear(`${projector}linear_2`, [config.width, config.width], true);
    const act = new ConfigReader(json, "config.json").string("projector_hidden_act", "gelu");
    const kind = activationKind(act, "config.json");
    return new ImageDecoder(
      decoder,
      setup,
      shuffledFeatures(tower, setup, (x) => linear2.apply(activation(linear1.apply(norm(x)), kind))),
    );
  },
};
