import { CheckpointError, PromptError } from "../../../errors.ts";
import { ONEVISION_PINPOINTS } from "../../../images/processors/tiled-processor-config.ts";
import { requireCausalWhole } from "../../checkpoint/config/neutral-fields.ts";
import { patchesPerSide } from "../../checkpoint/config/vision-config.ts";
import { ConfigReader, isObject, type JsonObject } from "../../checkpoint/json/config-reader.ts";
import type { Family, FamilyFiles } from "../family.ts";
import { type LlavaDefaults, llavaProcessor, readLlavaDecoder, readLlavaTower } from "./parts/llava-parts.ts";
import {
  buildTiled,
  readTiledSetup,
  type TiledConfig,
  type TiledSetup,
  tiledImageRules,
} from "./parts/llava-tiles.ts";

/** SigLIP So400m/14 at 384 pixels over Qwen2, as Hugging Face's LlavaOnevisionConfig has it. */
const DEFAULTS: LlavaDefaults = {
  text: "qwen2",
  vision: {
    model_type: "siglip_vision_model",
    hidden_size: 1152,
    intermediate_size: 4304,
    patch_size: 14,
    image_size: 384,
    num_hidden_layers: 26,
    num_attention_heads: 16,
  },
  layer: -1,
  strategy: "full",
  imageTokenId: 151646,
};

const ASPECT_RATIO = "anyres_max_9";

function readSetup(config: JsonObject, where: string, files: FamilyFiles): TiledSetup {
  const c = new ConfigReader(config, where);
  const ratio = c.string("vision_aspect_ratio", ASPECT_RATIO);
  const [, most] = /^anyres_max_([1-9]\d*)$/.exec(ratio) ?? [];
  if (most === undefined) {
    throw new CheckpointError(
      `${where}: vision_aspect_ratio ${JSON.stringify(ratio)} is not supported; expected anyres_max_ and a number`,
    );
  }
  const tower = readLlavaTower(config, where, files, DEFAULTS);
  const setup = readTiledSetup(config, where, tower, {
    pinpoints: ONEVISION_PINPOINTS,
    mostTiles: Number(most),
  });
  checkProcessor(files.processor, where, {
    num_image_tokens: patchesPerSide(setup.tower) ** 2,
    vision_feature_select_strategy: tower.strategy,
    vision_aspect_ratio: ratio,
  });
  const field = c.has("video_token_id") ? "video_token_id" : "video_token_index";
  const videoTokenId = c.count(field, 151647, 0);
  return {
    ...setup,
    check(prompt) {
      if (videoTokenId === setup.imageTokenId || !prompt.ids.includes(videoTokenId)) return;
      throw new PromptError(`Expected a prompt without videos, found ${files.tokenOf(videoTokenId)}.`);
    },
  };
}

/** Throws CheckpointError where the processor writes other numbers of tokens than the model has features. */
function checkProcessor(processor: unknown, where: string, expected: JsonObject): void {
  if (!isObject(processor)) return;
  for (const [field, value] of Object.entries(expected)) {
    const said = processor[field] ?? (field === "vision_aspect_ratio" ? ASPECT_RATIO : value);
    if (said === value) continue;
    throw new CheckpointError(
      `${where}: expected ${field} of processor_config.json to be ${JSON.stringify(value)}, as the model has it, found ` +
        JSON.stringify(said),
    );
  }
}

/**
 * LLaVA-OneVision (Li et al. 2024, arXiv 2408.03326): LLaVA-NeXT over SigLIP, whose maps of tiles are shrunk where they are large. Only
 * a picture that is alone in its prompt is cut; of several each is padded to a square. Videos are refused.
 */
export const llavaOnevision: Family<TiledConfig> = {
  modelType: "llava_onevision",
  readConfig(config, where, files) {
    requireCausalWhole(config, where);
    const vision = readSetup(config, where, files);
    return { ...readLlavaDecoder(config, where, files, DEFAULTS), vision };
  },
  imageRules: ({ vision }) => tiledImageRules(vision),
  processor(config) {
    const { image_token, vision_feature_select_strategy } = llavaProcessor("LlavaOnevisionProcessor", config);
    return {
      processor_class: "LlavaOnevisionProcessor",
      image_token,
      num_image_tokens: patchesPerSide(config.vision.tower) ** 2,
      vision_feature_select_strategy,
      vision_aspect_ratio: `anyres_max_${config.vision.mostTiles}`,
    };
  },
  build: buildTiled,
};
