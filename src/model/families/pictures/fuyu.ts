import { CheckpointError, ImageError } from "../../../errors.ts";
import { pixelRows } from "../../../images/patch-rows.ts";
import { viewSize } from "../../../images/preprocess.ts";
import { readFuyuProcessorConfig } from "../../../images/processors/fuyu-processor-config.ts";
import type { Device } from "../../../tensor/device.ts";
import type { Tensor } from "../../../tensor/tensor.ts";
import { requireNeutral } from "../../checkpoint/config/neutral-fields.ts";
import type { ImageLayout, Picture, VisionSetup } from "../../checkpoint/config/vision-setup.ts";
import { ConfigReader, isObject, type JsonObject } from "../../checkpoint/json/config-reader.ts";
import { findPrefix } from "../../checkpoint/weights/find-prefix.ts";
import { ImageDecoder } from "../../layers/bridges/image-decoder.ts";
import { pixelValues } from "../../prompt/prompt-image.ts";
import { passOverImages } from "../../walk/input-passes.ts";
import type { Family, FamilyFiles } from "../family.ts";
import { type PersimmonConfig, persimmon, readPersimmonConfig } from "../text/persimmon.ts";
import { fuyuRules, mantisRules, PATCH } from "./parts/fuyu-prompts.ts";
import { requirePreprocessor } from "./parts/llava-parts.ts";

interface FuyuConfig extends PersimmonConfig {
  readonly vision: VisionSetup;
  /** Whether prompts are Mantis'. */
  readonly isMantis: boolean;
}

/** The architecture and the processor of Mantis-8B-Fuyu, whose model_type is fuyu too. */
const MANTIS = ["MFuyuForCausalLM", "MFuyuProcessor"];

function readConfig(config: JsonObject, where: string, files: FamilyFiles): FuyuConfig {
  requireNeutral(config, where);
  const c = new ConfigReader(config, where);
  const decoder = readText(config, where);
  const channels = c.count("num_channels", 3);
  if (channels !== 3) {
    throw new CheckpointError(`${where}: num_channels ${channels} is not supported; expected 3`);
  }
  const patchSize = c.count("patch_size", 30);
  const preprocessor = requirePreprocessor(files, where);
  const processor = readFuyuProcessorConfig(preprocessor);
  if (processor.fillPatches.side !== patchSize) {
    throw new CheckpointError(
      `${where}: expected an image processor whose patch_size is the config's, ${patchSize}, found ${processor.fillPatches.side}`,
    );
  }
  const imageTokenId = c.count("image_token_id", files.idOf(PATCH) ?? 71011, 0);
  const imageToken = files.tokenOf(imageTokenId);
  if (imageToken !== PATCH) {
    throw new CheckpointError(
      `${where}: expected image_token_id to be that of ${PATCH}, which its processor writes, found ${imageTokenId} (${imageToken})`,
    );
  }
  return {
    ...decoder,
    isMantis: isMantis(config, preprocessor, files),
    vision: {
      tower: { kind: "fuyu", layers: 0, width: decoder.width, heads: 1, mlpWidth: 0, patchSize },
      imageToken,
      imageTokenId,
      featureLayer: 0,
      layout: (picture) => layoutOf(picture, patchSize, processor),
      processor,
    },
  };
}

/** The language model's config: of its own, or as published, among the fields of the whole. */
function readText(config: JsonObject, where: string): PersimmonConfig {
  const tie_word_embeddings = new ConfigReader(config, where).boolean("tie_word_embeddings", false);
  const { text_config: text } = config;
  if (isObject(text)) {
    const type = text["model_type"] ?? "persimmon";
    if (type !== "persimmon") {
      throw new CheckpointError(
        `${where}: Fuyu over ${JSON.stringify(type)} is not supported; supported is persimmon`,
      );
    }
    // The class of the whole model has the head, and its field decides.
    return readPersimmonConfig({ ...text, tie_word_embeddings }, `${where}: text_config`);
  }
  // transformers 5 takes half of each head for RoPE whatever this field of such a config says, and 4.x what it says.
  const share = config["partial_rotary_factor"] ?? 0.5;
  if (share !== 0.5) {
    throw new CheckpointError(
      `${where}: partial_rotary_factor ${JSON.stringify(share)} outside of a text_config is not supported; expected 0.5`,
    );
  }
  return readPersimmonConfig({ ...config, partial_rotary_factor: 0.5, tie_word_embeddings }, where);
}

function isMantis(config: JsonObject, preprocessor: unknown, { processor }: FamilyFiles): boolean {
  const { architectures } = config;
  const said = [
    ...(Array.isArray(architectures) ? architectures : []),
    ...[preprocessor, processor].map((file) => (isObject(file) ? file["processor_class"] : undefined)),
  ];
  return said.some((name) => MANTIS.includes(name as string));
}

/** A position for each patch, and one behind each row of them. Throws ImageError for a picture that they do not fill. */
function layoutOf(picture: Picture, side: number, processor: VisionSetup["processor"]): ImageLayout {
  const { width, height } =
    "shape" in picture ? { width: picture.shape[2], height: picture.shape[1] } : viewSize(picture, processor);
  if (width < 1 || height < 1 || width % side !== 0 || height % side !== 0) {
    throw new ImageError(
      `expected a picture whose sides are multiples of ${side} pixels, as Fuyu's patches are, found ${width} x ${height}`,
    );
  }
  const grid = { rows: height / side, columns: width / side };
  const tokens = grid.rows * grid.columns;
  return { towerRows: tokens, tokens, grid };
}

/** The patches of pictures, one after the other: f32 [patches, side * side * 3]. */
function uploadPatches(
  device: Device,
  images: readonly Picture[],
  { tower, processor }: VisionSetup,
): Tensor {
  const side = tower.patchSize;
  const parts = images.map((image) => pixelRows(pixelValues(image, processor), side));
  const all = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  const values = 3 * side * side;
  return device.tensor(all, { shape: [all.length / values, values] });
}

/**
 * Fuyu (Bavishi et al. 2023, adept.ai/blog/fuyu-8b): Persimmon with the patches of pictures of any size, projected by one linear
 * layer, among its tokens. There is no vision tower. Mantis-8B-Fuyu (Jiang et al. 2024, arXiv 2405.01483) is this with prompts of
 * its own.
 */
export const fuyu: Family<FuyuConfig> = {
  modelType: "fuyu",
  readConfig,
  imageRules: ({ vision, isMantis }) => (isMantis ? mantisRules(vision) : fuyuRules(vision)),
  async build(w, config, json) {
    const setup = config.vision;
    // As published, and as transformers names the modules.
    const prefix = findPrefix(w, ["language_model.model.", "model.language_model."], "embed_tokens.weight");
    const head = findPrefix(w, ["language_model.lm_head", "lm_head"], ".weight");
    const patches = findPrefix(w, ["vision_embed_tokens", "model.vision_embed_tokens"], ".weight");
    const decoder = await persimmon.build(w, config, json, { prefix, head });
    const { patchSize } = setup.tower;
    const linear = await w.linear(patches, [config.width, 3 * patchSize ** 2], true);
    return new ImageDecoder(decoder, setup, function* (images, pass) {
      const pixels = pass.pixels(uploadPatches(pass.device, images, setup)); // [patches, side * side * 3]
      const own = passOverImages(pass, (image) => setup.layout(image).tokens);
      return yield* own.sites().pass("projector", linear.apply(pixels));
    });
  },
};
