import { CheckpointError } from "../../errors.ts";
import { readProcessorConfig } from "../../images/processor-config.ts";
import { type ActivationKind, activation } from "../../kernels/elementwise/activation.ts";
import { setRows } from "../../kernels/movement/row-edits.ts";
import type { Device } from "../../tensor/device.ts";
import type { Tensor } from "../../tensor/tensor.ts";
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
import { type Decoder, idsOf } from "../layers/decoder.ts";
import { uploadImages } from "../layers/upload-images.ts";
import { readVisionTower, type VisionTower } from "../layers/vision-tower.ts";
import type { ImageRules } from "../prompt/build-prompt.ts";
import { checkImagePlaces, imagePlaces } from "../prompt/image-places.ts";
import type { Prompt } from "../prompt/prompt.ts";
import type { PromptImage } from "../prompt/prompt-image.ts";
import { takeRows } from "../walk/forward.ts";
import type { Network } from "../walk/network.ts";
import type { Pass } from "../walk/pass.ts";
import type { Sites, Walk } from "../walk/site-events.ts";
import type { Stack } from "../walk/stack.ts";
import { scoped } from "../walk/walk.ts";
import type { Family, FamilyFiles, TextFamily } from "./family.ts";
import { llama } from "./llama.ts";
import { mistral } from "./mistral.ts";

interface Projector {
  readonly linear1: Linear;
  readonly activation: ActivationKind;
  readonly linear2: Linear;
}

/**
 * LLaVA-1.5 (Liu et al. 2023, arXiv 2310.03744): the features of a CLIP or SigLIP tower, projected by a two-layer MLP, take
 * the places of the `<image>` tokens in a Llama or Mistral decoder.
 */
export class LlavaNetwork implements Network {
  readonly device: Device;
  readonly config: DecoderConfig;
  readonly #setup: VisionSetup;
  readonly #tower: VisionTower;
  readonly #projector: Projector;
  readonly stack: Stack;
  readonly #decoder: Decoder;

  constructor(decoder: Decoder, setup: VisionSetup, tower: VisionTower, projector: Projector) {
    this.device = decoder.device;
    this.config = decoder.config;
    this.#setup = setup;
    this.#tower = tower;
    this.#projector = projector;
    this.#decoder = decoder;
    this.stack = decoder.stack;
  }

  /** All that the tower makes goes before the language model begins, except what is put in its rows. */
  embed(prompts: readonly Prompt<PromptImage>[], pass: Pass): Walk<Tensor> {
    return scoped(this.device, () => this.#embed(prompts, pass));
  }

  *#embed(prompts: readonly Prompt<PromptImage>[], pass: Pass): Walk<Tensor> {
    const at = pass.sites();
    const tokens = this.#decoder.tokenEmbeddings(idsOf(this.device, prompts)); // [rows, width]
    const places = imageRows(prompts, this.#setup);
    if (places.length === 0) return yield* at.pass("embed", this.#decoder.withPositions(tokens, pass));
    const features = yield* this.#features(prompts, pass); // [places, width]
    const merged = setRows(tokens, places, features);
    return yield* at.pass("embed", this.#decoder.withPositions(merged, pass));
  }

  *#features(prompts: readonly Prompt<PromptImage>[], pass: Pass): Walk<Tensor> {
    const { tower, processor, featureLayer, keepsClassToken, fixed } = this.#setup;
    const { towerRows: rows, tokens } = fixed!;
    const images = prompts.flatMap((p) => p.images);
    const pixels = uploadImages(this.device, images, tower, processor);
    const stream = yield* this.#tower.stream(
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
    const { linear1, activation: kind, linear2 } = this.#projector;
    const projected = linear2.apply(activation(linear1.apply(kept), kind));
    return yield* pass
      .images(() => tokens)
      .sites()
      .pass("projector", projected);
  }

  embedTokens(ids: Tensor, pass: Pass): Walk<Tensor> {
    return this.#decoder.embedTokens(ids, pass);
  }

  head(x: Tensor, at: Sites): Walk<Tensor> {
    return this.#decoder.head(x, at);
  }

  dispose(): void {
    this.#decoder.dispose();
  }
}

/** Rows of the batch that hold image features, image by image. Throws PromptError when they do not match the images. */
function imageRows(prompts: readonly Prompt<PromptImage>[], setup: VisionSetup): number[] {
  const rows: number[] = [];
  let start = 0;
  for (const prompt of prompts) {
    checkImagePlaces(prompt, setup);
    for (const place of imagePlaces(prompt, setup)) rows.push(start + place);
    start += prompt.length;
  }
  return rows;
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

function readConfig(config: JsonObject, where: string, files: FamilyFiles): DecoderConfig {
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

function readSetup(config: JsonObject, where: string, { preprocessor, tokenOf }: FamilyFiles): VisionSetup {
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

export const llava: Family = {
  modelType: "llava",
  readConfig,
  imageRules: (config) => config.vision && llavaImageRules(config.vision),
  async build(w, config, json) {
    const setup = config.vision!;
    const c = new ConfigReader(json, "config.json");
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
    return new LlavaNetwork(
      await decoderFamily(c.object("text_config"), "config.json").build(w, config, c.object("text_config"), {
        prefix: text,
        head,
      }),
      setup,
      await readVisionTower(w, setup.tower, vision),
      {
        linear1: await w.linear(`${projector}linear_1`, [config.width, width], bias),
        activation: activationKind(c.string("projector_hidden_act", "gelu"), "config.json"),
        linear2: await w.linear(`${projector}linear_2`, [config.width, config.width], bias),
      },
    );
  },
};
