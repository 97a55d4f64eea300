import { CheckpointError } from "../../../errors.ts";
import { readIdefics3Processor } from "../../../images/processors/grid-processor-config.ts";
import type { DecoderConfig } from "../../checkpoint/config/decoder-config.ts";
import { requireCausalWhole } from "../../checkpoint/config/neutral-fields.ts";
import { patchesPerSide, readVisionConfig } from "../../checkpoint/config/vision-config.ts";
import type { Picture } from "../../checkpoint/config/vision-setup.ts";
import { ConfigReader, type JsonObject } from "../../checkpoint/json/config-reader.ts";
import { ImageDecoder } from "../../layers/bridges/image-decoder.ts";
import { readVisionTower } from "../../layers/towers/vision-tower.ts";
import type { ImageText } from "../../prompt/image-rules.ts";
import type { Family, FamilyFiles, TextFamily } from "../family.ts";
import { llama } from "../text/llama.ts";
import { mistral } from "../text/mistral.ts";
import { qwen2 } from "../text/qwen2.ts";
import { qwen3 } from "../text/qwen3.ts";
import { FAKE_TOKEN, IMAGE_TOKEN } from "./parts/idefics-images.ts";
import { readImageToken, requirePreprocessor } from "./parts/llava-parts.ts";
import {
  checkTileTokens,
  gridsOf,
  innerDecoder,
  readInnerDecoder,
  type ShuffledSetup,
  shuffledFeatures,
  shuffledSetup,
} from "./parts/shuffled-tiles.ts";

interface Idefics3Config extends DecoderConfig {
  readonly vision: ShuffledSetup;
}

const DECODERS: readonly [TextFamily, ...TextFamily[]] = [llama, mistral, qwen2, qwen3];

/** Values that Hugging Face's Idefics3VisionConfig has where a vision_config is silent. */
const VISION_DEFAULTS = {
  hidden_size: 1152,
  intermediate_size: 3072,
  num_hidden_layers: 12,
  num_attention_heads: 16,
  num_channels: 3,
  image_size: 224,
  patch_size: 32,
};

/** Names of the one kind of tower: its own, those of the whole in published configs, and what it was made of. */
const TOWER_TYPES = ["idefics3_vision", "smolvlm_vision", "idefics3", "smolvlm", "siglip_vision_model"];

function readSetup(config: JsonObject, where: string, files: FamilyFiles): ShuffledSetup {
  const c = new ConfigReader(config, where);
  const given = c.object("vision_config");
  const type = given["model_type"] ?? TOWER_TYPES[0];
  if (!TOWER_TYPES.includes(type as string)) {
    throw new CheckpointError(
      `${where}: vision_config: vision towers of model_type ${JSON.stringify(type)} are not supported; supported are ` +
        TOWER_TYPES.join(", "),
    );
  }
  const tower = readVisionConfig(
    { ...VISION_DEFAULTS, ...given, model_type: "siglip_vision_model" },
    `${where}: vision_config`,
  );
  const token = readImageToken(config, where, files, 128257);
  for (const name of [IMAGE_TOKEN, FAKE_TOKEN]) {
    if (files.idOf(name) === undefined) {
      throw new CheckpointError(`${where}: the tokenizer beside it has no token ${name}`);
    }
  }
  if (token.imageToken !== IMAGE_TOKEN) {
    throw new CheckpointError(
      `${where}: expected image_token_id to be the id of ${IMAGE_TOKEN}, ${files.idOf(IMAGE_TOKEN)}, found ${token.imageTokenId}`,
    );
  }
  const setup = shuffledSetup(
    {
      tower: { ...tower, fractionalPlaces: true },
      ...token,
      featureLayer: tower.layers,
      postNorm: true,
      keepsClassToken: true, // there is none
      shuffle: c.count("scale_factor", 2),
    },
    readIdefics3Processor(requirePreprocessor(files, where)),
    { where, factor: "scale_factor" },
  );
  checkTileTokens(files.processor, "image_seq_len", setup, { where, factor: "scale_factor" });
  return setup;
}

/** What its processor makes of a picture: its tiles row by row, and the whole. */
function imageText(setup: ShuffledSetup, picture: Picture): ImageText {
  const { tileGrid } = setup.layout(picture);
  const tile = (name: string) =>
    `${FAKE_TOKEN}<${name}>${IMAGE_TOKEN.repeat((patchesPerSide(setup.tower) / setup.shuffle) ** 2)}`;
  const row = (r: number) =>
    `${Array.from({ length: tileGrid!.columns }, (_, c) => tile(`row_${r + 1}_col_${c + 1}`)).join("")}\n`;
  const tiles = tileGrid ? `${Array.from({ length: tileGrid.rows }, (_, r) => row(r)).join("")}\n` : "";
  return { text: `${tiles}${tile("global-img")}${FAKE_TOKEN}`, ...gridsOf(setup, picture) };
}

/**
 * Idefics3 (Laurençon et al. 2024, arXiv 2408.12637) and SmolVLM (Marafioti et al. 2025, arXiv 2504.05299), which computes the
 * same: the features of a SigLIP tower, squares of patches beside each other and projected by one linear layer, in a Llama
 * decoder. Pictures are cut into tiles, each of which has its place in the prompt.
 */
function family(modelType: "idefics3" | "smolvlm"): Family<Idefics3Config> {
  return {
    modelType,
    readConfig(config, where, files) {
      requireCausalWhole(config, where);
      const vision = readSetup(config, where, files);
      return { ...readInnerDecoder(config, where, files, DECODERS, false), vision };
    },
    imageRules: ({ vision }) => ({
      placeholder: IMAGE_TOKEN,
      expand: (picture) => imageText(vision, picture),
    }),
    async build(w, config, json) {
      const setup = config.vision;
      const { family, text } = innerDecoder(json, "config.json", DECODERS);
      const decoder = await family.build(w, config, text, { prefix: "model.text_model.", head: "lm_head" });
      const tower = await readVisionTower(w, setup.tower, "model.vision_model.");
      const features = setup.tower.width * setup.shuffle ** 2;
      const linear = await w.linear("model.connector.modality_projection.proj", [config.width, features]);
      return new ImageDecoder(
        decoder,
        setup,
        shuffledFeatures(tower, setup, (x) => linear.apply(x)),
      );
    },
  };
}

export const idefics3 = family("idefics3");
export const smolvlm = family("smolvlm");
