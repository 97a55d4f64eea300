import { CheckpointError } from "../../../../errors.ts";
import { readProcessorConfig } from "../../../../images/processors/processor-config.ts";
import { activationKind } from "../../../checkpoint/config/activation-kind.ts";
import type { DecoderConfig } from "../../../checkpoint/config/decoder-config.ts";
import { requireWholeHeads } from "../../../checkpoint/config/encoder-config.ts";
import { requireNeutral } from "../../../checkpoint/config/neutral-fields.ts";
import { rowsPerImage } from "../../../checkpoint/config/vision-config.ts";
import type { QFormerConfig, VisionSetup } from "../../../checkpoint/config/vision-setup.ts";
import { ConfigReader, type JsonObject } from "../../../checkpoint/json/config-reader.ts";
import type { Weights } from "../../../checkpoint/weights/weights.ts";
import { ImageDecoder, type ImageFeatures } from "../../../layers/bridges/image-decoder.ts";
import { readQFormer } from "../../../layers/bridges/qformer.ts";
import {
  type BlipTowerConfig,
  readBlipTower,
  readBlipTowerConfig,
} from "../../../layers/towers/blip-tower.ts";
import { towerFeatures } from "../../../layers/towers/tower-features.ts";
import type { ImageRules } from "../../../prompt/image-rules.ts";
import type { PromptImage } from "../../../prompt/prompt-image.ts";
import { passOverImages } from "../../../walk/input-passes.ts";
import type { Network } from "../../../walk/network.ts";
import type { FamilyFiles, TextFamily } from "../../family.ts";
import { llama } from "../../text/llama.ts";
import { opt } from "../../text/opt.ts";
import { buildT5, type T5Config, t5 } from "../../text/t5.ts";
import { requirePreprocessor } from "./llava-parts.ts";

// What BLIP-2 and InstructBLIP have in common: EVA's ViT, a Q-Former, one linear layer, and a language model as it is.

export type BlipSetup = VisionSetup<BlipTowerConfig> & { readonly qformer: QFormerConfig };

export interface BlipConfig extends DecoderConfig {
  readonly vision: BlipSetup;
}

/** Decoders that may be inside, and where they are in the file. */
const DECODERS: readonly { readonly family: TextFamily; readonly prefix: string }[] = [
  { family: opt, prefix: "language_model.model.decoder." },
  { family: llama, prefix: "language_model.model." },
];
const HEAD = "language_model.lm_head";

/** Values that Hugging Face's Blip2QFormerConfig and InstructBlipQFormerConfig have where a config is silent. */
const QFORMER_DEFAULTS = {
  vocab_size: 30522,
  hidden_size: 768,
  num_hidden_layers: 12,
  num_attention_heads: 12,
  intermediate_size: 3072,
  hidden_act: "gelu",
  max_position_embeddings: 512,
  layer_norm_eps: 1e-12,
  cross_attention_frequency: 2,
  position_embedding_type: "absolute",
};

function textOf(config: JsonObject, where: string): JsonObject {
  return new ConfigReader(config, where).object("text_config");
}

const typeOf = (text: JsonObject) => text["model_type"] ?? opt.modelType;

/** The config of the language model and of the way that pictures take. `readsText`: whether the Q-Former reads the prompt. */
export function readBlipConfig(
  config: JsonObject,
  where: string,
  files: FamilyFiles,
  readsText: boolean,
): BlipConfig {
  requireNeutral(config, where);
  const text = textOf(config, where);
  const type = typeOf(text);
  const family = [t5, ...DECODERS.map((decoder) => decoder.family)].find((each) => each.modelType === type);
  if (!family) {
    throw new CheckpointError(
      `${where}: ${config["model_type"]} over ${JSON.stringify(type)} is not supported; supported are ` +
        `${[...DECODERS.map((decoder) => decoder.family), t5].map((each) => each.modelType).join(", ")}`,
    );
  }
  const decoder = family.readConfig(text, `${where}: text_config`, files);
  return { ...decoder, vision: readSetup(config, where, files, readsText) };
}

function readSetup(config: JsonObject, where: string, files: FamilyFiles, readsText: boolean): BlipSetup {
  const c = new ConfigReader(config, where);
  const tower = readBlipTowerConfig(c.object("vision_config"), `${where}: vision_config`);
  const queries = c.count("num_query_tokens", 32);
  const qformer = readQFormerConfig(
    c.object("qformer_config"),
    `${where}: qformer_config`,
    queries,
    readsText,
  );
  const fixed = { towerRows: rowsPerImage(tower), tokens: queries, latents: queries };
  return {
    tower,
    qformer,
    ...readImageToken(c, where, files),
    featureLayer: tower.layers,
    postNorm: true,
    keepsClassToken: true,
    fixed,
    layout: () => fixed,
    processor: readProcessorConfig(requirePreprocessor(files, where)),
  };
}

function readQFormerConfig(
  values: JsonObject,
  where: string,
  queries: number,
  readsText: boolean,
): QFormerConfig {
  requireNeutral(values, where);
  const c = new ConfigReader({ ...QFORMER_DEFAULTS, ...values }, where);
  const positions = c.string("position_embedding_type");
  if (positions !== "absolute") {
    throw new CheckpointError(
      `${where}: position_embedding_type ${JSON.stringify(positions)} is not supported; expected "absolute"`,
    );
  }
  // Of BLIP-2's class alone; the other always has it.
  if (!readsText && c.boolean("use_qformer_text_input", false)) {
    throw new CheckpointError(
      `${where}: use_qformer_text_input true (models that match pictures and texts) is not supported; expected false`,
    );
  }
  const layers = c.count("num_hidden_layers");
  const every = c.count("cross_attention_frequency");
  const config = {
    layers,
    queries,
    width: c.count("hidden_size"),
    heads: c.count("num_attention_heads"),
    mlpWidth: c.count("intermediate_size"),
    normEps: c.number("layer_norm_eps"),
    activation: activationKind(c.string("hidden_act"), where),
    crossLayers: Array.from({ length: layers }, (_, layer) => layer).filter((layer) => layer % every === 0),
    ...(readsText && { text: { vocab: c.count("vocab_size"), context: c.count("max_position_embeddings") } }),
  };
  requireWholeHeads(config, where);
  return config;
}

function readImageToken(
  c: ConfigReader,
  where: string,
  { tokenOf, idOf }: FamilyFiles,
): Pick<BlipSetup, "imageToken" | "imageTokenId"> {
  const field = c.has("image_token_id") ? "image_token_id" : "image_token_index";
  if (!c.has(field)) {
    throw new CheckpointError(
      `${where}: image_token_index is missing; expected the id of the token <image>, as in checkpoints that ` +
        "transformers 4.46 and later run without a warning",
    );
  }
  const imageTokenId = c.count(field, undefined, 0);
  const imageToken = tokenOf(imageTokenId);
  if (idOf(imageToken) !== imageTokenId) {
    throw new CheckpointError(
      `${where}: the tokenizer beside it has no token of the id ${imageTokenId} (${field}), which stands for pictures`,
    );
  }
  return { imageToken, imageTokenId };
}

/** How prompts hold images: in front of everything, special tokens included, as the processors put them; or among the text. */
export function blipImageRules({ imageToken, qformer }: BlipSetup): ImageRules<PromptImage> {
  return {
    placeholder: imageToken,
    leads: true,
    expand: () => ({ text: imageToken.repeat(qformer.queries) }),
  };
}

export async function buildBlip(w: Weights, config: BlipConfig, json: JsonObject): Promise<Network> {
  const setup = config.vision;
  const { tower: towerConfig, qformer: qformerConfig } = setup;
  const tower = await readBlipTower(w, towerConfig, "vision_model.");
  const qformer = await readQFormer(w, qformerConfig, {
    prefix: "qformer.",
    queries: "query_tokens",
    towerWidth: towerConfig.width,
  });
  const project = await w.linear("language_projection", [config.width, qformerConfig.width], true);
  const features: ImageFeatures = function* (images, pass) {
    const seen = yield* towerFeatures(tower, setup, images, pass); // [all tower rows, their width]
    const projected = project.apply(yield* qformer.run(seen, pass, setup)); // [places, width]
    return yield* passOverImages(pass, () => qformerConfig.queries)
      .sites()
      .pass("projector", projected);
  };
  const text = textOf(json, "config.json");
  const inside = DECODERS.find(({ family }) => family.modelType === typeOf(text));
  if (!inside) {
    return await buildT5(w, config as BlipConfig & T5Config, {
      prefix: "language_model.",
      pictures: { setup, features },
    });
  }
  const { family, prefix } = inside;
  return new ImageDecoder(await family.build(w, config, text, { prefix, head: HEAD }), setup, features);
}
