import { CheckpointError } from "../../errors.ts";
import { activation } from "../../kernels/elementwise/activation.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { activationKind } from "../checkpoint/config/activation-kind.ts";
import type { DecoderConfig } from "../checkpoint/config/decoder-config.ts";
import { requireNeutral } from "../checkpoint/config/neutral-fields.ts";
import { readVisionConfig, type SquareVisionSetup } from "../checkpoint/config/vision-config.ts";
import { ConfigReader, isObject, type JsonObject } from "../checkpoint/json/config-reader.ts";
import { findPrefix } from "../checkpoint/weights/find-prefix.ts";
import type { Weights } from "../checkpoint/weights/weights.ts";
import type { Decoder } from "../layers/decoder.ts";
import { readVisionTower, type VisionTower } from "../layers/vision-tower.ts";
import type { FamilyFiles, TextFamily } from "./family.ts";
import { llama } from "./llama.ts";
import { mistral } from "./mistral.ts";

// What LLaVA-1.5 and LLaVA-NeXT (and in part PaliGemma) have in common.

/** The tower where a vision_config is silent: CLIP ViT-L/14 at 336 pixels, as Hugging Face's classes have it. */
const VISION_DEFAULTS = {
  model_type: "clip_vision_model",
  hidden_size: 1024,
  intermediate_size: 4096,
  num_hidden_layers: 24,
  num_attention_heads: 16,
  image_size: 336,
  patch_size: 14,
};

const DECODERS: readonly TextFamily[] = [llama, mistral];

function decoderFamily(text: JsonObject, where: string): TextFamily {
  const type = text["model_type"] ?? "llama";
  const family = DECODERS.find((f) => f.modelType === type);
  if (family) return family;
  throw new CheckpointError(
    `${where}: LLaVA over ${JSON.stringify(type)} is not supported; supported are ${DECODERS.map((f) => f.modelType).join(", ")}`,
  );
}

/** The language model of a config. */
export function readLlavaDecoder(config: JsonObject, where: string, files: FamilyFiles): DecoderConfig {
  const text = textConfig(config, where);
  requireNeutral(config, where);
  // Either of the two ties.
  const tied = new ConfigReader(config, where).boolean("tie_word_embeddings", false)
    ? true
    : (text["tie_word_embeddings"] ?? false);
  return decoderFamily(text, where).readConfig(
    { ...text, tie_word_embeddings: tied },
    `${where}: text_config`,
    files,
  );
}

/** Throws CheckpointError where it is missing. */
export function textConfig(config: JsonObject, where: string): JsonObject {
  const text = config["text_config"];
  if (isObject(text)) return text;
  throw new CheckpointError(`${where}: text_config is missing`);
}

/** A LLaVA's config: its tower is one of CLIP or SigLIP. */
export interface LlavaConfig extends DecoderConfig {
  readonly vision: SquareVisionSetup;
}

/** The tower of a config and what is read of it; which rows a picture has differs from family to family. */
export interface LlavaTower extends Omit<SquareVisionSetup, "fixed" | "layout" | "processor"> {
  /** Which rows are read: "default" leaves out the first, whatever the tower. */
  readonly strategy: "default" | "full";
  /** Contents of preprocessor_config.json. */
  readonly preprocessor: unknown;
}

export function readLlavaTower(config: JsonObject, where: string, files: FamilyFiles): LlavaTower {
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
  return {
    tower,
    featureLayer,
    strategy,
    keepsClassToken: strategy === "full",
    ...readImageToken(config, where, files, 32000),
    preprocessor: requirePreprocessor(files, where),
  };
}

export function readImageToken(
  config: JsonObject,
  where: string,
  { tokenOf }: FamilyFiles,
  byDefault: number,
): Pick<SquareVisionSetup, "imageToken" | "imageTokenId"> {
  const field = "image_token_id" in config ? "image_token_id" : "image_token_index";
  const imageTokenId = new ConfigReader(config, where).count(field, byDefault, 0);
  return { imageTokenId, imageToken: tokenOf(imageTokenId) };
}

/** Contents of preprocessor_config.json. */
export function requirePreprocessor({ preprocessor }: FamilyFiles, where: string): unknown {
  if (preprocessor !== undefined) return preprocessor;
  throw new CheckpointError(`${where}: there is no preprocessor_config.json beside it`);
}

/** Where the parts are. Four spellings of one model: as published, as saved by transformers 4.52 on, and as saved by 5. */
export function partNames(
  w: Weights,
  { probe, tower = "embeddings.patch_embedding.weight" }: { probe: string; tower?: string },
) {
  return {
    prefix: findPrefix(w, ["language_model.model.", "model.language_model."], "embed_tokens.weight"),
    head: findPrefix(w, ["language_model.lm_head", "lm_head"], ".weight"),
    vision: findPrefix(
      w,
      [
        "vision_tower.vision_model.",
        "model.vision_tower.vision_model.",
        "vision_tower.",
        "model.vision_tower.",
      ],
      tower,
    ),
    projector: findPrefix(w, ["multi_modal_projector.", "model.multi_modal_projector."], probe),
  };
}

/** A tower of which only the stream is read, not what CLIP and SigLIP make of it. */
export function readStreamTower(
  w: Weights,
  { tower }: SquareVisionSetup,
  vision: string,
): Promise<VisionTower> {
  w.skip(`${vision}head`, `${vision.replace(/vision_model\.$/, "")}visual_projection`);
  return readVisionTower(w, tower, vision);
}

/** processor_config.json of a LLaVA, whose processor is of this class. */
export function llavaProcessor(
  processor_class: string,
  { imageToken, tower, keepsClassToken }: SquareVisionSetup,
): JsonObject {
  return {
    processor_class,
    image_token: imageToken,
    patch_size: tower.patchSize,
    num_additional_image_tokens: tower.kind === "clip" ? 1 : 0,
    vision_feature_select_strategy: keepsClassToken ? "full" : "default",
  };
}

export interface LlavaParts {
  readonly decoder: Decoder;
  readonly tower: VisionTower;
  /** A two-layer MLP: [rows, width of the tower] → [rows, width]. */
  project(x: Tensor): Tensor;
}

export async function readLlavaParts(w: Weights, config: LlavaConfig, json: JsonObject): Promise<LlavaParts> {
  const setup = config.vision;
  const c = new ConfigReader(json, "config.json");
  const { prefix, head, vision, projector } = partNames(w, { probe: "linear_1.weight" });
  const text = c.object("text_config");
  const bias = c.boolean("multimodal_projector_bias", true);
  const kind = activationKind(c.string("projector_hidden_act", "gelu"), "config.json");
  const decoder = await decoderFamily(text, "config.json").build(w, config, text, { prefix, head });
  const tower = await readStreamTower(w, setup, vision);
  const linear1 = await w.linear(`${projector}linear_1`, [config.width, setup.tower.width], bias);
  const linear2 = await w.linear(`${projector}linear_2`, [config.width, config.width], bias);
  return { decoder, tower, project: (x) => linear2.apply(activation(linear1.apply(x), kind)) };
}
