import { CheckpointError } from "../../../errors.ts";
import { readProcessorConfig } from "../../../images/processors/processor-config.ts";
import { matmul } from "../../../kernels/matmul/matmul.ts";
import { mean } from "../../../kernels/reduction/reduce.ts";
import type { Tensor } from "../../../tensor/tensor.ts";
import { requireNeutral } from "../../checkpoint/config/neutral-fields.ts";
import {
  patchesPerSide,
  readVisionConfig,
  type SquareVisionSetup,
} from "../../checkpoint/config/vision-config.ts";
import { ConfigReader, isObject, type JsonObject } from "../../checkpoint/json/config-reader.ts";
import type { Weights } from "../../checkpoint/weights/weights.ts";
import { ImageDecoder } from "../../layers/bridges/image-decoder.ts";
import { pixelShuffle } from "../../layers/bridges/pixel-shuffle.ts";
import { readRmsNorm } from "../../layers/norm.ts";
import { rowsOf, towerFeatures } from "../../layers/towers/tower-features.ts";
import { passOverImages } from "../../walk/input-passes.ts";
import { wholePictures } from "../../walk/masks.ts";
import type { Family, FamilyFiles } from "../family.ts";
import { buildGemma3, type Gemma3TextConfig, readGemma3Text } from "../text/gemma3-text.ts";
import { rulesOf } from "../text/llama.ts";
import {
  partNames,
  readImageToken,
  readStreamTower,
  requirePreprocessor,
  textConfig,
} from "./parts/llava-parts.ts";

interface Gemma3Vision extends SquareVisionSetup {
  readonly pooled: number;
  /** The tokens in front of a picture's features and behind them. */
  readonly frame: { readonly start: string; readonly end: string };
}

interface Gemma3Config extends Gemma3TextConfig {
  readonly vision: Gemma3Vision;
}

function readConfig(config: JsonObject, where: string, files: FamilyFiles): Gemma3Config {
  requireNeutral(config, where);
  const { logitSoftcap: _, ...text } = readText(config, where); // which this class does not apply
  return { ...text, vision: readSetup(config, where, files) };
}

function readText(config: JsonObject, where: string): Gemma3TextConfig {
  const text = textConfig(config, where);
  const type = text["model_type"] ?? "gemma3_text";
  if (type !== "gemma3_text") {
    throw new CheckpointError(
      `${where}: Gemma 3 over ${JSON.stringify(type)} is not supported; supported is gemma3_text`,
    );
  }
  // Either of the two ties.
  const outer = new ConfigReader(config, where).boolean("tie_word_embeddings", true);
  const tied = outer ? true : (text["tie_word_embeddings"] ?? true);
  return readGemma3Text({ ...text, tie_word_embeddings: tied }, `${where}: text_config`);
}

function readSetup(config: JsonObject, where: string, files: FamilyFiles): Gemma3Vision {
  const c = new ConfigReader(config, where);
  const vision = { model_type: "siglip_vision_model", ...c.object("vision_config") };
  const tower = readVisionConfig(vision, `${where}: vision_config`);
  if (tower.kind !== "siglip") {
    throw new CheckpointError(
      `${where}: vision_config: Gemma 3 over ${tower.kind} is not supported; supported is siglip_vision_model`,
    );
  }
  const patches = patchesPerSide(tower);
  const tokens = c.count("mm_tokens_per_image", 256);
  const side = Math.sqrt(tokens);
  if (!Number.isInteger(side) || patches % side !== 0) {
    throw new CheckpointError(
      `${where}: expected mm_tokens_per_image to be the square of a divisor of ${patches}, the patches along a side of the ` +
        `picture, found ${tokens}`,
    );
  }
  const preprocessor = requirePreprocessor(files, where);
  checkTokens(files.processor, tokens, where);
  const fixed = { towerRows: patches ** 2, tokens, grid: { rows: side, columns: side } };
  return {
    tower,
    ...readImageToken(config, where, files, 262144),
    frame: readFrame(c, where, files),
    featureLayer: tower.layers,
    postNorm: true,
    keepsClassToken: true, // there is none
    pooled: patches / side,
    wholePictures: true,
    fixed,
    layout: () => fixed,
    processor: readProcessorConfig(preprocessor),
  };
}

/** Throws CheckpointError where the processor writes another number of tokens for a picture. */
function checkTokens(processor: unknown, tokens: number, where: string): void {
  const said = isObject(processor) ? (processor["image_seq_length"] ?? 256) : tokens;
  if (said === tokens) return;
  throw new CheckpointError(
    `${where}: expected image_seq_length of processor_config.json to be mm_tokens_per_image, ${tokens}, found ${JSON.stringify(said)}`,
  );
}

/** Its processor takes the tokens from the tokenizer, which calls them `boi_token` and `eoi_token`. */
function readFrame(c: ConfigReader, where: string, files: FamilyFiles): Gemma3Vision["frame"] {
  const named = (name: string, field: string, byDefault: number) => {
    const given = files.specialTokens?.[name];
    const token = given ?? files.tokenOf(c.count(field, byDefault, 0));
    if (files.idOf(token) !== undefined) return token;
    throw new CheckpointError(`${where}: the tokenizer beside it has no ${name} ${JSON.stringify(token)}`);
  };
  return {
    start: named("boi_token", "boi_token_index", 255999),
    end: named("eoi_token", "eoi_token_index", 256000),
  };
}

/**
 * Gemma 3 (Gemma Team 2025, arXiv 2503.19786): the features of a SigLIP tower, squares of them averaged and projected, in a
 * Gemma 3 decoder. The tokens of a picture attend to all of it.
 */
export const gemma3: Family<Gemma3Config> = {
  modelType: "gemma3",
  readConfig,
  imageRules({ vision }) {
    const { imageToken, frame, fixed } = vision;
    const { tokens, grid } = fixed!;
    const text = `\n\n${frame.start}${imageToken.repeat(tokens)}${frame.end}\n\n`;
    return {
      placeholder: frame.start,
      featureToken: imageToken,
      expand: () => ({ text, ...(grid && { grid }) }),
    };
  },
  processor: ({ vision }) => ({
    processor_class: "Gemma3Processor",
    image_seq_length: vision.fixed!.tokens,
  }),
  async build(w, config) {
    const setup = config.vision;
    const { prefix, head, vision, projector } = partNames(w, { probe: "mm_input_projection_weight" });
    const rules = rulesOf(config).map((rule) => wholePictures(rule, setup.imageTokenId));
    const decoder = await buildGemma3(w, config, { prefix, head }, rules);
    const tower = await readStreamTower(w, setup, vision);
    const project = await readProjector(w, config, projector);
    return new ImageDecoder(decoder, setup, function* (images, pass) {
      const read = yield* towerFeatures(tower, setup, images, pass); // [tiles * side², width of the tower]
      const own = passOverImages(
        pass,
        rowsOf(setup, ({ tokens }) => tokens),
      ).sites();
      const pooled = yield* own.pass("pooled", averaged(read, setup));
      const normed = yield* own.pass("projector_norm", project.norm(pooled));
      return yield* own.pass("projector", matmul(normed, project.weight));
    });
  },
};

async function readProjector(w: Weights, { width, vision: { tower } }: Gemma3Config, prefix: string) {
  return {
    norm: await readRmsNorm(w, `${prefix}mm_soft_emb_norm`, tower.width, { eps: tower.normEps, offset: 1 }),
    /** A parameter by itself and not of a linear layer: [width of the tower, width]. */
    weight: await w.tensor(`${prefix}mm_input_projection_weight`, [tower.width, width]),
  };
}

/** The mean of each square of patches: [patches, width] → [patches / pooled², width]. */
function averaged(x: Tensor, { tower, pooled }: Gemma3Vision): Tensor {
  const squares = pixelShuffle(x, patchesPerSide(tower), pooled); // the patches of each beside each other
  return mean(squares.reshape([squares.dim(0), pooled ** 2, tower.width]), 1);
}
