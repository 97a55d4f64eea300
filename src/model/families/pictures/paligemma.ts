import { CheckpointError } from "../../../errors.ts";
import { readProcessorConfig } from "../../../images/processors/processor-config.ts";
import { requireNeutral } from "../../checkpoint/config/neutral-fields.ts";
import { readVisionConfig, type SquareVisionSetup } from "../../checkpoint/config/vision-config.ts";
import { ConfigReader, isObject, type JsonObject } from "../../checkpoint/json/config-reader.ts";
import { ImageDecoder } from "../../layers/bridges/image-decoder.ts";
import { rowsOf, towerFeatures } from "../../layers/towers/tower-features.ts";
import { passOverImages } from "../../walk/input-passes.ts";
import { promptPrefix } from "../../walk/masks.ts";
import type { Family, FamilyFiles } from "../family.ts";
import { buildGemma, type GemmaConfig, readGemmaConfig } from "../text/gemma.ts";
import { llavaImageRules, squareLayout } from "./llava.ts";
import {
  partNames,
  readImageToken,
  readStreamTower,
  requirePreprocessor,
  textConfig,
} from "./parts/llava-parts.ts";

/** The tower where a config has no vision_config: SigLIP So400m/14 at 224 pixels, as Hugging Face's PaliGemmaConfig has it. */
const VISION_DEFAULTS = {
  hidden_size: 1152,
  intermediate_size: 4096,
  num_hidden_layers: 27,
  num_attention_heads: 16,
  patch_size: 14,
  image_size: 224,
};

interface PaliGemmaConfig extends GemmaConfig {
  readonly vision: SquareVisionSetup;
}

function readConfig(config: JsonObject, where: string, files: FamilyFiles): PaliGemmaConfig {
  const decoder = readDecoder(config, where);
  const projected = new ConfigReader(config, where).count("projection_dim", 2048);
  if (projected !== decoder.width) {
    throw new CheckpointError(
      `${where}: expected projection_dim to be the width of the language model, ${decoder.width}, found ${projected}`,
    );
  }
  // The prompt's positions count from 1.
  const rope = { ...decoder.rope, firstPosition: 1 };
  return { ...decoder, rope, promptBothWays: true, vision: readSetup(config, where, files) };
}

function readDecoder(config: JsonObject, where: string): GemmaConfig {
  const { use_bidirectional_attention: both, ...text } = textConfig(config, where);
  requireNeutral(config, where);
  const type = text["model_type"] ?? "gemma";
  if (type !== "gemma") {
    throw new CheckpointError(
      `${where}: PaliGemma over ${JSON.stringify(type)} is not supported; supported is gemma`,
    );
  }
  // Either of the two ties.
  const outer = new ConfigReader(config, where).boolean("tie_word_embeddings", true);
  const tied = outer ? true : (text["tie_word_embeddings"] ?? true);
  // The prompt attends both ways whatever the field says, which here is true where it is null.
  if (![undefined, null, true].includes(both as null)) {
    throw new CheckpointError(
      `${where}: text_config: use_bidirectional_attention ${JSON.stringify(both)} is not supported; expected true or null`,
    );
  }
  const own = new ConfigReader(text, `${where}: text_config`);
  // Gemma's class knows neither, PaliGemma's does: it caps logits, and fails with a window.
  if (own.has("sliding_window")) {
    throw new CheckpointError(
      `${where}: text_config: expected no sliding_window, found ${own.value("sliding_window")}`,
    );
  }
  const cap = own.has("final_logit_softcapping") && { logitSoftcap: own.positive("final_logit_softcapping") };
  return { ...readGemmaConfig({ ...text, tie_word_embeddings: tied }, `${where}: text_config`), ...cap };
}

function readSetup(config: JsonObject, where: string, files: FamilyFiles): SquareVisionSetup {
  const c = new ConfigReader(config, where);
  const given = c.has("vision_config") ? c.object("vision_config") : VISION_DEFAULTS;
  const tower = readVisionConfig({ model_type: "siglip_vision_model", ...given }, `${where}: vision_config`);
  if (tower.kind !== "siglip") {
    throw new CheckpointError(
      `${where}: vision_config: PaliGemma over ${tower.kind} is not supported; supported is siglip_vision_model`,
    );
  }
  const preprocessor = requirePreprocessor(files, where);
  const fixed = squareLayout(tower, "full");
  checkTokens(preprocessor, fixed.tokens, where);
  return {
    tower,
    ...readImageToken(config, where, files, 256000),
    featureLayer: tower.layers,
    postNorm: true,
    keepsClassToken: true, // there is none
    fixed,
    layout: () => fixed,
    processor: readProcessorConfig(preprocessor),
  };
}

/** Throws CheckpointError where the processor says another number of tokens for a picture than the tower makes. */
function checkTokens(preprocessor: unknown, tokens: number, where: string): void {
  if (!isObject(preprocessor)) return;
  const inner = preprocessor["image_processor"];
  const said = (isObject(inner) ? inner : preprocessor)["image_seq_length"];
  if (said === undefined || said === tokens) return;
  throw new CheckpointError(
    `${where}: expected image_seq_length of the image processor to be ${tokens}, as many as the tower has patches, ` +
      `found ${JSON.stringify(said)}`,
  );
}

/**
 * PaliGemma (Beyer et al. 2024, arXiv 2407.07726): the features of a SigLIP tower, projected by one linear layer, in front of
 * a Gemma decoder. Pictures and prompt attend both ways, what follows is causal.
 */
export const paligemma: Family<PaliGemmaConfig> = {
  modelType: "paligemma",
  readConfig,
  imageRules: ({ vision }) => ({
    ...llavaImageRules(vision),
    bosBehindImages: { end: "\n" },
  }),
  processor: () => ({ processor_class: "PaliGemmaProcessor" }),
  async build(w, config) {
    const setup = config.vision;
    const { prefix, head, vision, projector } = partNames(w, { probe: "linear.weight" });
    const decoder = await buildGemma(w, config, { prefix, head }, promptPrefix);
    const tower = await readStreamTower(w, setup, vision);
    const linear = await w.linear(`${projector}linear`, [config.width, setup.tower.width], true);
    return new ImageDecoder(decoder, setup, function* (images, pass) {
      const projected = linear.apply(yield* towerFeatures(tower, setup, images, pass)); // [places, width]
      const own = passOverImages(
        pass,
        rowsOf(setup, ({ tokens }) => tokens),
      );
      return yield* own.sites().pass("projector", projected);
    });
  },
};
