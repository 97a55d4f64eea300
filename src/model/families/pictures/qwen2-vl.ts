import { CheckpointError, PromptError } from "../../../errors.ts";
import { readProcessorConfig } from "../../../images/processors/processor-config.ts";
import type { LlamaConfig } from "../../checkpoint/config/decoder-config.ts";
import { requireNeutral } from "../../checkpoint/config/neutral-fields.ts";
import {
  blockGrid,
  type PatchTowerConfig,
  type PatchTowerFields,
  readPatchTower,
  requireSamePatches,
} from "../../checkpoint/config/patch-tower-config.ts";
import { ropeParameters } from "../../checkpoint/config/rope-config.ts";
import type { ImageLayout, VisionSetup } from "../../checkpoint/config/vision-setup.ts";
import { ConfigReader, isObject, type JsonObject } from "../../checkpoint/json/config-reader.ts";
import { findPrefix } from "../../checkpoint/weights/find-prefix.ts";
import type { Weights } from "../../checkpoint/weights/weights.ts";
import { ImageDecoder } from "../../layers/bridges/image-decoder.ts";
import type { MergerNames } from "../../layers/bridges/patch-merger.ts";
import { plainMlp } from "../../layers/mlp.ts";
import { readLayerNorm } from "../../layers/norm.ts";
import { pictureRope, promptCoordinates } from "../../layers/rope/picture-rope.ts";
import { type PatchTowerKind, readPatchFeatures } from "../../layers/towers/patch-tower.ts";
import type { PatchGrid } from "../../prompt/prompt.ts";
import { full } from "../../walk/masks.ts";
import type { Family, FamilyFiles } from "../family.ts";
import { buildLlama } from "../text/llama.ts";
import { QWEN2_DEFAULTS, readQwenConfig } from "../text/qwen2.ts";
import { llavaImageRules } from "./llava.ts";

export interface QwenVlConfig extends LlamaConfig {
  readonly vision: VisionSetup<PatchTowerConfig>;
  /** Which coordinate turns which of the frequencies; see `PictureRopeOptions`. */
  readonly axes: readonly number[];
}

/** The norms of towers and mergers, whatever a config says. */
export const TOWER_EPS = 1e-6;

/** Values that Hugging Face's Qwen2VLTextConfig has where a config.json is silent. */
const TEXT_DEFAULTS = {
  ...QWEN2_DEFAULTS,
  vocab_size: 152064,
  hidden_size: 8192,
  intermediate_size: 29568,
  num_hidden_layers: 80,
  num_attention_heads: 64,
  num_key_value_heads: 8,
  rms_norm_eps: 1e-5,
  max_window_layers: 80,
};

const TOWER: PatchTowerFields = {
  kind: "qwen2_vl",
  defaults: {
    depth: 32,
    embed_dim: 1280,
    hidden_size: 3584,
    hidden_act: "quick_gelu",
    mlp_ratio: 4,
    num_heads: 16,
    in_channels: 3,
    patch_size: 14,
    spatial_merge_size: 2,
    temporal_patch_size: 2,
  },
  width: "embed_dim",
  outWidth: "hidden_size",
  mlpWidth: (c, width) => Math.trunc(width * c.positive("mlp_ratio")),
};

/** What the language model's config says. */
type ReadText = (values: JsonObject, where: string) => Omit<QwenVlConfig, "vision">;

/** Reads a config of Qwen2-VL or what has another tower, or another text. */
export function readQwenVlConfig(
  config: JsonObject,
  where: string,
  { preprocessor, tokenOf }: FamilyFiles,
  tower: PatchTowerFields,
  readText: ReadText = readQwen2Text,
): QwenVlConfig {
  requireNeutral(config, where);
  const c = new ConfigReader(config, where);
  const flat = !c.has("text_config"); // as published
  const text = flat ? config : c.object("text_config");
  const inText = flat ? where : `${where}: text_config`;
  // Either of the two ties.
  const tied =
    c.boolean("tie_word_embeddings", false) ||
    new ConfigReader(text, inText).boolean("tie_word_embeddings", false);
  const decoder = readText({ ...text, tie_word_embeddings: tied }, inText);

  const inVision = `${where}: vision_config`;
  const towerConfig = readPatchTower(c.object("vision_config"), tower, inVision);
  if (towerConfig.outWidth !== decoder.width) {
    throw new CheckpointError(
      `${inVision}: expected ${tower.outWidth} to be the language model's width ${decoder.width}, found ${towerConfig.outWidth}`,
    );
  }
  if (preprocessor === undefined) {
    throw new CheckpointError(`${where}: there is no preprocessor_config.json beside it`);
  }
  const processor = readProcessorConfig(preprocessor);
  requireSamePatches(processor, towerConfig, where);
  const imageTokenId = c.count("image_token_id", 151655, 0);
  const videoTokenId = Number(c.value("video_token_id") ?? 151656);
  const vision: QwenVlConfig["vision"] = {
    tower: towerConfig,
    imageTokenId,
    imageToken: tokenOf(imageTokenId),
    featureLayer: towerConfig.layers,
    layout: (picture) => layoutOf(blockGrid(picture, processor, towerConfig), towerConfig),
    check(prompt) {
      if (prompt.ids.includes(videoTokenId) && videoTokenId !== imageTokenId) {
        throw new PromptError(`Expected a prompt without videos, found ${tokenOf(videoTokenId)}.`);
      }
      promptCoordinates(prompt, vision);
    },
    processor,
  };
  return { ...decoder, vision };
}

function readQwen2Text(values: JsonObject, where: string): Omit<QwenVlConfig, "vision"> {
  const given = {
    rope_theta: 1000000,
    ...values,
    ...plainRope(values),
    use_sliding_window: values["use_sliding_window"] ?? false,
  };
  const decoder = readQwenConfig(given, { defaults: TEXT_DEFAULTS }, where);
  const { headDim, heads, width } = decoder;
  if (headDim * heads !== width) {
    throw new CheckpointError(
      `${where}: expected head_dim to be the width ${width} by ${heads} heads, found ${headDim}`,
    );
  }
  const sections = readSections(given, headDim, where, [16, 24, 24]);
  const axes = sections.flatMap((count, i) => new Array<number>(count).fill(i % 3)); // in turns
  return { ...decoder, attentionBias: true, axes };
}

/** RoPE's parameters without the name "mrope", which is the default with sections. */
export function plainRope(values: JsonObject): JsonObject {
  const plain = (section: unknown) =>
    isObject(section) && (section["rope_type"] ?? section["type"]) === "mrope"
      ? { ...section, rope_type: "default" }
      : section;
  return Object.fromEntries(
    ["rope_scaling", "rope_parameters"]
      .filter((key) => key in values)
      .map((key) => [key, plain(values[key])]),
  ) as JsonObject;
}

/** `mrope_section`: how many of the frequencies turn with time, row and column. */
export function readSections(
  values: JsonObject,
  headDim: number,
  where: string,
  byDefault: readonly number[],
): readonly number[] {
  const parameters = ropeParameters(values);
  const found = parameters["mrope_section"] ?? byDefault;
  const nested = Object.keys(parameters).find((key) => isObject(parameters[key]));
  if (nested !== undefined) {
    throw new CheckpointError(
      `${where}: rope_parameters of their own for ${nested} are not supported; expected them for all layers`,
    );
  }
  const fits =
    Array.isArray(found) &&
    found.every((count) => Number.isSafeInteger(count) && count >= 0) &&
    found.reduce((sum, count) => sum + count, 0) === headDim / 2;
  if (fits) return found;
  throw new CheckpointError(
    `${where}: expected mrope_section (of rope_scaling or rope_parameters) to be whole numbers that are ${headDim / 2} together, ` +
      `half of a head (head_dim, or hidden_size by num_attention_heads), found ${JSON.stringify(found)}`,
  );
}

/** What the parts of a merger are called. */
export const QWEN2_MERGER: MergerNames = { norm: "ln_q", in: "mlp.0", out: "mlp.2" };

/** The layout of a picture of so many blocks. */
function layoutOf(grid: PatchGrid, { patches: { merge } }: PatchTowerConfig): ImageLayout {
  const tokens = grid.rows * grid.columns;
  return { towerRows: tokens * merge ** 2, tokens, grid };
}

export async function buildQwenVl(
  w: Weights,
  config: QwenVlConfig,
  towerKind: PatchTowerKind,
): Promise<ImageDecoder> {
  // As published, and as transformers names the modules.
  const vision = findPrefix(w, ["visual.", "model.visual."], "patch_embed.proj.weight");
  const prefix = findPrefix(w, ["model.", "model.language_model."], "embed_tokens.weight");
  const rope = pictureRope(config, config.vision);
  const pictureLayers = config.vision.deepstack ?? 0;
  const decoder = await buildLlama(w, config, {}, { prefix, rope, pictureLayers });
  const features = await readPatchFeatures(w, config.vision, vision, towerKind);
  return new ImageDecoder(decoder, config.vision, features);
}

/**
 * Qwen2-VL (Wang et al. 2024, arXiv 2409.12191): a vision transformer over pictures of any size, blocks of 2 by 2 patches
 * merged into a feature each, and Qwen2 turned by time, row and column.
 */
export const qwen2Vl: Family<QwenVlConfig> = {
  modelType: "qwen2_vl",
  readConfig: (config, where, files) => readQwenVlConfig(config, where, files, TOWER),
  imageRules: (config) => llavaImageRules(config.vision),
  build(w, config) {
    const { width, mlpWidth, activation } = config.vision.tower;
    return buildQwenVl(w, config, {
      merger: QWEN2_MERGER,
      norm: (name, width) => readLayerNorm(w, name, width, TOWER_EPS),
      async mlp(prefix) {
        const weights = {
          in: await w.linear(`${prefix}fc1`, [mlpWidth, width], true),
          out: await w.linear(`${prefix}fc2`, [width, mlpWidth], true),
        };
        return plainMlp(weights, activation);
      },
      rule: () => full,
    });
  },
};
