import { CheckpointError } from "../../../../errors.ts";
import { activation } from "../../../../kernels/elementwise/activation.ts";
import type { Tensor } from "../../../../tensor/tensor.ts";
import { activationKind } from "../../../checkpoint/config/activation-kind.ts";
import type { DecoderConfig } from "../../../checkpoint/config/decoder-config.ts";
import { requireNeutral } from "../../../checkpoint/config/neutral-fields.ts";
import { readVisionConfig, type SquareVisionSetup } from "../../../checkpoint/config/vision-config.ts";
import { ConfigReader, isObject, type JsonObject } from "../../../checkpoint/json/config-reader.ts";
import { findPrefix } from "../../../checkpoint/weights/find-prefix.ts";
import type { Weights } from "../../../checkpoint/weights/weights.ts";
import type { Decoder } from "../../../layers/decoder.ts";
import { readVisionTower, type VisionTower } from "../../../layers/towers/vision-tower.ts";
import type { FamilyFiles, TextFamily } from "../../family.ts";
import { TEXT_FAMILIES } from "../../text/text-families.ts";

// What LLaVA-1.5 and LLaVA-NeXT (and in part PaliGemma) have in common.

/** What a family's config class has where a config is silent. */
export interface LlavaDefaults {
  readonly text: string;
  /** The tower as a whole; a config that says anything of it leans on its class's defaults. */
  readonly vision: JsonObject & { readonly model_type: string };
  readonly layer: number;
  readonly strategy: "default" | "full";
  readonly imageTokenId: number;
}

/** LLaVA-1.5's and LLaVA-NeXT's: CLIP ViT-L/14 at 336 pixels. */
const DEFAULTS: LlavaDefaults = {
  text: "llama",
  vision: {
    model_type: "clip_vision_model",
    hidden_size: 1024,
    intermediate_size: 4096,
    num_hidden_layers: 24,
    num_attention_heads: 16,
    image_size: 336,
    patch_size: 14,
  },
  layer: -2,
  strategy: "default",
  imageTokenId: 32000,
};

function decoderFamily(text: JsonObject, where: string, byDefault: string): TextFamily {
  const type = text["model_type"] ?? byDefault;
  const family = TEXT_FAMILIES.find((f) => f.modelType === type);
  if (family) return family;
  throw new CheckpointError(
    `${where}: LLaVA over ${JSON.stringify(type)} is not supported; supported are ${TEXT_FAMILIES.map((f) => f.modelType).join(", ")}`,
  );
}

/** The language model of a config. */
export function readLlavaDecoder(
  config: JsonObject,
  where: string,
  files: FamilyFiles,
  { text: byDefault }: LlavaDefaults = DEFAULTS,
): DecoderConfig & { readonly textFamily: string } {
  const text = textConfig(config, where);
  requireNeutral(config, where);
  const family = decoderFamily(text, where, byDefault);
  // Either of the two ties.
  const outer = new ConfigReader(config, where).boolean("tie_word_embeddings", false);
  const { tie_word_embeddings: inner = outer, ...rest } = text;
  const ties =
    outer || "tie_word_embeddings" in text ? { tie_word_embeddings: outer || (inner ?? false) } : {};
  // LLaVA has a head of its own, which does not apply what the decoder's may have beside.
  const { logitSoftcap: _, ...decoder } = family.readConfig(
    { ...rest, ...ties },
    `${where}: text_config`,
    files,
  ) as DecoderConfig & { logitSoftcap?: number };
  return { ...decoder, textFamily: family.modelType };
}

/** Throws CheckpointError where it is missing. */
export function textConfig(config: JsonObject, where: string): JsonObject {
  const text = config["text_config"];
  if (isObject(text)) return text;
  throw new CheckpointError(`${where}: text_config is missing`);
}

/** A LLaVA's config: its tower is one of CLIP or SigLIP. */
export interface LlavaConfig extends DecoderConfig {
  /** `model_type` of the language model. */
  readonly textFamily: string;
  readonly vision: SquareVisionSetup;
}

/** The tower of a config and what is read of it; which rows a picture has differs from family to family. */
export interface LlavaTower extends Omit<SquareVisionSetup, "fixed" | "layout" | "processor"> {
  /** Which rows are read: "default" leaves out the first, whatever the tower. */
  readonly strategy: "default" | "full";
  /** Contents of preprocessor_config.json. */
  readonly preprocessor: unknown;
}

export function readLlavaTower(
  config: JsonObject,
  where: string,
  files: FamilyFiles,
  defaults: LlavaDefaults = DEFAULTS,
): LlavaTower {
  const c = new ConfigReader(config, where);
  const given = c.has("vision_config") ? c.object("vision_config") : defaults.vision;
  const vision = { model_type: defaults.vision.model_type, ...given };
  const tower = readVisionConfig(vision, `${where}: vision_config`);
  const featureLayer = readFeatureLayer(c, tower.layers, where, defaults.layer);
  if (featureLayer === tower.layers) {
    requireNeutral(vision, `${where}: vision_config`, ["tie_last_hidden_states"]);
  }
  const strategy = c.string("vision_feature_select_strategy", defaults.strategy);
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
    ...readImageToken(config, where, files, defaults.imageTokenId),
    preprocessor: requirePreprocessor(files, where),
  };
}

/** `vision_feature_layer` as the number of the block that the stream which is read enters. */
export function readFeatureLayer(c: ConfigReader, layers: number, where: string, byDefault = -2): number {
  const layer = c.integer("vision_feature_layer", byDefault);
  // Counted in Hugging Face's hidden states: 0 enters the first block, -1 leaves the last.
  const featureLayer = layer < 0 ? layers + 1 + layer : layer;
  if (featureLayer >= 0 && featureLayer <= layers) return featureLayer;
  throw new CheckpointError(`${where}: vision_feature_layer ${layer} does not exist in ${layers} layers`);
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

/**
 * Where the parts are. Four spellings of one model: as published, as saved by transformers 4.52 on, and as saved by 5.
 *
 * @param family the language model's
 */
export function partNames(
  w: Weights,
  {
    probe,
    tower = "embeddings.patch_embedding.weight",
    family,
  }: { probe: string; tower?: string; family?: TextFamily },
) {
  const { alone = "model.", inside = "", embedding = "embed_tokens" } = family?.names ?? {};
  const prefixes = [`language_model.${alone}`, `model.language_model.${inside}`] as const;
  return {
    prefix: findPrefix(w, [...prefixes, `language_model.model.${inside}`], `${embedding}.weight`),
    head: findPrefix(w, ["language_model.lm_head", "lm_head", "language_model.embed_out"], ".weight"),
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
  { textFamily, vision: { imageToken, tower, keepsClassToken } }: LlavaConfig,
): JsonObject {
  requireLlamaNames(textFamily);
  return {
    processor_class,
    image_token: imageToken,
    patch_size: tower.patchSize,
    num_additional_image_tokens: tower.kind === "clip" ? 1 : 0,
    vision_feature_select_strategy: keepsClassToken ? "full" : "default",
  };
}

/** Throws CheckpointError for a language model whose tensors have other names in a file than Llama's, which export writes. */
export function requireLlamaNames(textFamily: string): void {
  if (!TEXT_FAMILIES.find((family) => family.modelType === textFamily)?.names) return;
  throw new CheckpointError(
    `expected a LLaVA whose language model has names like Llama's, found one over ${textFamily}, which cannot be exported yet`,
  );
}

export interface LlavaParts {
  readonly decoder: Decoder;
  readonly tower: VisionTower;
  /** A two-layer MLP: [rows, width of the tower] → [rows, width]. */
  project(x: Tensor): Tensor;
}

export async function readLlavaParts(w: Weights, config: LlavaConfig, json: JsonObject): Promise<LlavaParts> {
  const { vision, ...parts } = await readAroundTower(w, config, json);
  return { ...parts, tower: await readStreamTower(w, config.vision, vision) };
}

/** All but the tower, whose names begin with `vision`; `tower` is the name of one of its weights. */
export async function readAroundTower(
  w: Weights,
  config: DecoderConfig & { readonly textFamily: string },
  json: JsonObject,
  tower?: string,
): Promise<Omit<LlavaParts, "tower"> & { readonly vision: string }> {
  const c = new ConfigReader(json, "config.json");
  const text = c.object("text_config");
  const family = decoderFamily(text, "config.json", config.textFamily);
  const names = partNames(w, { probe: "linear_1.weight", family, ...(tower !== undefined && { tower }) });
  const { prefix, head, vision, projector } = names;
  const bias = c.boolean("multimodal_projector_bias", true);
  const kind = activationKind(c.string("projector_hidden_act", "gelu"), "config.json");
  const decoder = await family.build(w, config, text, { prefix, head });
  const shape = [config.width, config.vision!.tower.width] as const;
  const linear1 = await w.linear(`${projector}linear_1`, shape, bias);
  const linear2 = await w.linear(`${projector}linear_2`, [config.width, config.width], bias);
  return { decoder, vision, project: (x) => linear2.apply(activation(linear1.apply(x), kind)) };
}
