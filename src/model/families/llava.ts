import { CheckpointError } from "../../errors.ts";
import { readProcessorConfig } from "../../images/processor-config.ts";
import { type ActivationKind, activation } from "../../kernels/elementwise/activation.ts";
import { activationKind } from "../checkpoint/config/activation-kind.ts";
import type { DecoderConfig } from "../checkpoint/config/decoder-config.ts";
import { requireNeutral } from "../checkpoint/config/neutral-fields.ts";
import {
  patchesPerSide,
  readVisionConfig,
  rowsPerImage,
  type VisionConfig,
} from "../checkpoint/config/vision-config.ts";
import type { ImageLayout, VisionSetup } from "../checkpoint/config/vision-setup.ts";
import { ConfigReader, isObject, type JsonObject } from "../checkpoint/json/config-reader.ts";
import { findPrefix } from "../checkpoint/weights/find-prefix.ts";
import type { Linear } from "../checkpoint/weights/linear-layer.ts";
import { ImageDecoder, type ImageFeatures } from "../layers/image-decoder.ts";
import { uploadImages } from "../layers/upload-images.ts";
import { readVisionTower, type VisionTower } from "../layers/vision-tower.ts";
import type { ImageRules } from "../prompt/build-prompt.ts";
import type { PromptImage } from "../prompt/prompt-image.ts";
import { takeRows } from "../walk/forward.ts";
import type { Family, FamilyFiles, TextFamily } from "./family.ts";
import { llama } from "./llama.ts";
import { mistral } from "./mistral.ts";

interface Projector {
  readonly linear1: Linear;
  readonly activation: ActivationKind;
  readonly linear2: Linear;
}

/** A LLaVA's config: its tower is one of CLIP or SigLIP. */
export interface LlavaConfig extends DecoderConfig {
  readonly vision: VisionSetup<VisionConfig>;
}

/** What a CLIP or SigLIP tower makes of pictures, projected by a two-layer MLP. */
function llavaFeatures(
  setup: VisionSetup<VisionConfig>,
  tower: VisionTower,
  { linear1, activation: kind, linear2 }: Projector,
): ImageFeatures {
  return function* (prompts, pass) {
    const { processor, featureLayer, keepsClassToken, fixed } = setup;
    const { towerRows: rows, tokens } = fixed!;
    const images = prompts.flatMap((p) => p.images);
    const pixels = uploadImages(pass.device, images, setup.tower, processor);
    const stream = yield* tower.stream(
      pixels,
      pass.images(() => rows),
      featureLayer,
    );
    const dropped = rows - tokens; // the class token, which comes first, unless it is kept
    const kept = keepsClassToken
      ? stream
      : takeRows(
          stream,
          images.flatMap((_, image) => Array.from({ length: tokens }, (_, i) => image * rows + dropped + i)),
        );
    const projected = linear2.apply(activation(linear1.apply(kept), kind));
    return yield* pass
      .images(() => tokens)
      .sites()
      .pass("projector", projected);
  };
}

/** How LLaVA prompts hold images: each `<image>` becomes one placeholder a feature, in one plain grid. */
export function llavaImageRules(setup: VisionSetup): ImageRules<PromptImage> {
  return {
    placeholder: setup.imageToken,
    expand(image) {
      const { tokens, grid } = setup.layout(image);
      return { text: setup.imageToken.repeat(tokens), ...(grid && { grid }) };
    },
  };
}

/** A picture as one square of patches. "default" drops the first row, whatever the tower. */
export function squareLayout(tower: VisionConfig, strategy: "default" | "full"): ImageLayout {
  const side = patchesPerSide(tower);
  const towerRows = rowsPerImage(tower);
  const tokens = towerRows - (strategy === "full" ? 0 : 1);
  // With a class token there is one more, and one less where "default" drops the first patch of a SigLIP tower.
  const isGrid = tokens === side * side;
  return { towerRows, tokens, ...(isGrid && { grid: { rows: side, columns: side } }) };
}

/** LLaVA-1.5's tower where a vision_config is silent: CLIP ViT-L/14 at 336 pixels, as Hugging Face's LlavaConfig has it. */
const VISION_DEFAULTS = {
  model_type: "clip_vision_model",
  hidden_size: 1024,
  intermediate_size: 4096,
  num_hidden_layers: 24,
  num_attention_heads: 16,
  image_size: 336,
  patch_size: 14,
};

function readConfig(config: JsonObject, where: string, files: FamilyFiles): LlavaConfig {
  const text = config["text_config"];
  if (!isObject(text)) throw new CheckpointError(`${where}: text_config is missing`);
  requireNeutral(config, where);
  // Either of the two ties.
  const tied = new ConfigReader(config, where).boolean("tie_word_embeddings", false)
    ? true
    : (text["tie_word_embeddings"] ?? false);
  const decoder = decoderFamily(text, where).readConfig(
    { ...text, tie_word_embeddings: tied },
    `${where}: text_config`,
    files,
  );
  return { ...decoder, vision: readSetup(config, where, files) };
}

const DECODERS: readonly TextFamily[] = [llama, mistral];

function decoderFamily(text: JsonObject, where: string): TextFamily {
  const type = text["model_type"] ?? "llama";
  const family = DECODERS.find((f) => f.modelType === type);
  if (family) return family;
  throw new CheckpointError(
    `${where}: LLaVA over ${JSON.stringify(type)} is not supported; supported are ${DECODERS.map((f) => f.modelType).join(", ")}`,
  );
}

function readSetup(
  config: JsonObject,
  where: string,
  { preprocessor, tokenOf }: FamilyFiles,
): VisionSetup<VisionConfig> {
  const c = new ConfigReader(config, where);
  // The defaults describe one tower as a whole; a config that says anything of it leans on its class's defaults.
  const given = c.has("vision_config") ? c.object("vision_config") : VISION_DEFAULTS;
  const vision = { model_type: VISION_DEFAULTS.model_type, ...given };
  const tower = readVisionConfig(vision, `${where}: vision_config`);
  const layer = c.integer("vision_feature_layer", -2);
  // Counted in Hugging Face's hidden states: 0 enters the first block, -1 leaves the last.
  const featureLayer = layer < 0 ? tower.layers + 1 + layer : layer;
  if (featureLayer < 0 || featureLayer > tower.layers) {
    throw new CheckpointError(
      `${where}: vision_feature_layer ${layer} does not exist in ${tower.layers} layers`,
    );
  }
  if (featureLayer === tower.layers) {
    requireNeutral(vision, `${where}: vision_config`, ["tie_last_hidden_states"]);
  }
  const strategy = c.string("vision_feature_select_strategy", "default");
  if (strategy !== "default" && strategy !== "full") {
    throw new CheckpointError(
      `${where}: expected vision_feature_select_strategy "default" or "full", found ${JSON.stringify(strategy)}`,
    );
  }
  const idField = "image_token_id" in config ? "image_token_id" : "image_token_index";
  const imageTokenId = c.count(idField, 32000, 0);
  if (preprocessor === undefined)
    throw new CheckpointError(`${where}: there is no preprocessor_config.json beside it`);
  const fixed = squareLayout(tower, strategy);
  return {
    tower,
    imageTokenId,
    imageToken: tokenOf(imageTokenId),
    featureLayer,
    keepsClassToken: strategy === "full",
    fixed,
    layout: () => fixed,
    processor: readProcessorConfig(preprocessor),
  };
}

/**
 * LLaVA-1.5 (Liu et al. 2023, arXiv 2310.03744): the features of a CLIP or SigLIP tower, projected by a two-layer MLP, take
 * the places of the `<image>` tokens in a Llama or Mistral decoder.
 */
export const llava: Family<LlavaConfig> = {
  modelType: "llava",
  exportsPictures: true,
  readConfig,
  imageRules: (config) => llavaImageRules(config.vision),
  async build(w, config, configJson) {
    const setup = config.vision;
    const c = new ConfigReader(configJson, "config.json");
    // Four spellings of one model: as published, as saved by transformers 4.52 on, and as saved by 5.
    const text = findPrefix(w, ["language_model.model.", "model.language_model."], "embed_tokens.weight");
    const head = findPrefix(w, ["language_model.lm_head", "lm_head"], ".weight");
    const vision = findPrefix(
      w,
      [
        "vision_tower.vision_model.",
        "model.vision_tower.vision_model.",
        "vision_tower.",
        "model.vision_tower.",
      ],
      "embeddings.patch_embedding.weight",
    );
    const projector = findPrefix(
      w,
      ["multi_modal_projector.", "model.multi_modal_projector."],
      "linear_1.weight",
    );
    // Only the tower's stream is read, not what CLIP and SigLIP make of it.
    w.skip(`${vision}head`, `${vision.replace(/vision_model\.$/, "")}visual_projection`);
    const bias = c.boolean("multimodal_projector_bias", true);
    const width = setup.tower.width;
    const json = c.object("text_config");
    const names = { prefix: text, head };
    const decoder = await decoderFamily(json, "config.json").build(w, config, json, names);
    const tower = await readVisionTower(w, setup.tower, vision);
    const features = llavaFeatures(setup, tower, {
      linear1: await w.linear(`${projector}linear_1`, [config.width, width], bias),
      activation: activationKind(c.string("projector_hidden_act", "gelu"), "config.json"),
      linear2: await w.linear(`${projector}linear_2`, [config.width, config.width], bias),
    });
    return new ImageDecoder(decoder, setup, features);
  },
};
