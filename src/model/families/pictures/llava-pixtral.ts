import { CheckpointError, ImageError } from "../../../errors.ts";
import { viewSize } from "../../../images/preprocess.ts";
import { readPixtralProcessor } from "../../../images/processors/pixtral-processor-config.ts";
import { activationKind } from "../../checkpoint/config/activation-kind.ts";
import type { DecoderConfig } from "../../checkpoint/config/decoder-config.ts";
import { requireNeutral } from "../../checkpoint/config/neutral-fields.ts";
import { ropeParameters } from "../../checkpoint/config/rope-config.ts";
import type { ImageLayout, Picture, VisionSetup } from "../../checkpoint/config/vision-setup.ts";
import { ConfigReader, isObject, type JsonObject } from "../../checkpoint/json/config-reader.ts";
import type { Weights } from "../../checkpoint/weights/weights.ts";
import { ImageDecoder } from "../../layers/bridges/image-decoder.ts";
import {
  PIXTRAL_PROBE,
  type PixtralTowerConfig,
  readPixtralTower,
} from "../../layers/towers/pixtral-tower.ts";
import type { ImageRules } from "../../prompt/image-rules.ts";
import type { PromptImage } from "../../prompt/prompt-image.ts";
import { passOverImages } from "../../walk/input-passes.ts";
import type { FamilyFiles } from "../family.ts";
import {
  readAroundTower,
  readFeatureLayer,
  readImageToken,
  readLlavaDecoder,
  requirePreprocessor,
} from "./parts/llava-parts.ts";

// LLaVA with Pixtral's tower (Pixtral-12B in Hugging Face's form).

interface PixtralSetup extends VisionSetup<PixtralTowerConfig> {
  /** The tokens behind each row of patches, and behind the last. */
  readonly breaks: { readonly row: string; readonly end: string };
}

export interface PixtralConfig extends DecoderConfig {
  readonly textFamily: string;
  readonly vision: PixtralSetup;
}

/** Values that Hugging Face's PixtralVisionConfig has where a config is silent. */
const TOWER_DEFAULTS = {
  hidden_size: 1024,
  intermediate_size: 4096,
  num_hidden_layers: 24,
  num_attention_heads: 16,
  num_channels: 3,
  patch_size: 16,
  hidden_act: "gelu",
};

/** Whether a LLaVA's config is of this kind. */
export function hasPixtralTower(config: JsonObject): boolean {
  const vision = config["vision_config"];
  return isObject(vision) && vision["model_type"] === "pixtral";
}

export function readPixtralConfig(config: JsonObject, where: string, files: FamilyFiles): PixtralConfig {
  return { ...readLlavaDecoder(config, where, files), vision: readSetup(config, where, files) };
}

function readSetup(config: JsonObject, where: string, files: FamilyFiles): PixtralSetup {
  const c = new ConfigReader(config, where);
  const tower = readTower(c.object("vision_config"), `${where}: vision_config`);
  const strategy = c.string("vision_feature_select_strategy", "default");
  if (strategy !== "full") {
    throw new CheckpointError(
      `${where}: vision_feature_select_strategy ${JSON.stringify(strategy)} of a pixtral tower is not supported; expected "full"`,
    );
  }
  const token = readImageToken(config, where, files, 32000);
  const breaks = readBreaks(files, tower.patchSize, token.imageToken, where);
  const processor = readPixtralProcessor(requirePreprocessor(files, where), tower.patchSize);
  const layout = (picture: Picture): ImageLayout => {
    const size =
      "shape" in picture
        ? { height: picture.shape[1], width: picture.shape[2] }
        : viewSize(picture, processor);
    const [rows, columns] = [size.height / tower.patchSize, size.width / tower.patchSize];
    if (!Number.isInteger(rows) || !Number.isInteger(columns) || rows * columns === 0) {
      throw new ImageError(
        `expected a picture whose sides are multiples of ${tower.patchSize} pixels for this vision tower, found ` +
          `${size.width} x ${size.height}`,
      );
    }
    return { towerRows: rows * columns, tokens: rows * columns, grid: { rows, columns } };
  };
  return {
    tower,
    ...token,
    featureLayer: readFeatureLayer(c, tower.layers, where),
    breaks,
    layout,
    processor,
  };
}

function readTower(values: JsonObject, where: string): PixtralTowerConfig {
  requireNeutral(values, where);
  const c = new ConfigReader({ ...TOWER_DEFAULTS, ...values }, where);
  const [width, heads] = [c.count("hidden_size"), c.count("num_attention_heads")];
  const headDim = c.has("head_dim") ? c.count("head_dim") : width / heads;
  // A quarter of a head turns with the row and a quarter with the column, each in pairs.
  if (headDim * heads !== width || headDim % 4 !== 0) {
    throw new CheckpointError(
      `${where}: a width (hidden_size) of ${width} does not divide into ${heads} heads (num_attention_heads) of a multiple of 4 ` +
        `each, found ${headDim} (head_dim)`,
    );
  }
  if (c.count("num_channels") !== 3) {
    throw new CheckpointError(
      `${where}: num_channels ${c.count("num_channels")} is not supported; expected 3`,
    );
  }
  for (const key of ["rope_scaling", "rope_parameters"]) c.object(key); // nothing else
  const rope = new ConfigReader(ropeParameters(values), `${where}: rope_parameters`);
  const type = rope.string("rope_type");
  if (type !== "axial" && type !== "default") {
    throw new CheckpointError(
      `${where}: RoPE (rope_type) ${JSON.stringify(type)} is not supported; supported is axial`,
    );
  }
  return {
    kind: "pixtral",
    layers: c.count("num_hidden_layers"),
    width,
    heads,
    mlpWidth: c.count("intermediate_size"),
    patchSize: c.count("patch_size"),
    theta: rope.positive("rope_theta"),
    activation: activationKind(c.string("hidden_act"), where),
  };
}

/** What the processor writes beside the image tokens. Throws CheckpointError where it cuts other patches than the tower takes. */
function readBreaks(
  { processor, idOf }: FamilyFiles,
  patchSize: number,
  imageToken: string,
  where: string,
): PixtralSetup["breaks"] {
  const c = new ConfigReader(isObject(processor) ? processor : {}, `${where}: processor_config.json`);
  const merge = c.count("spatial_merge_size", 1);
  if (merge !== 1) {
    throw new CheckpointError(
      `${where}: spatial_merge_size ${merge} of processor_config.json is not supported (Mistral 3's patch merger); expected 1`,
    );
  }
  const patch = c.count("patch_size", 16);
  if (patch !== patchSize) {
    throw new CheckpointError(
      `${where}: expected patch_size of processor_config.json to be the tower's, ${patchSize}, found ${patch}`,
    );
  }
  const token = c.string("image_token", "[IMG]");
  if (token !== imageToken) {
    throw new CheckpointError(
      `${where}: expected image_token of processor_config.json to be ${imageToken}, the token of image_token_index, found ${token}`,
    );
  }
  const breaks = {
    row: c.string("image_break_token", "[IMG_BREAK]"),
    end: c.string("image_end_token", "[IMG_END]"),
  };
  for (const name of Object.values(breaks)) {
    if (idOf(name) === undefined) {
      throw new CheckpointError(`${where}: the tokenizer beside it has no token ${name}`);
    }
  }
  return breaks;
}

/** A row of image tokens for each row of patches, with a token of its own behind it. */
export function pixtralImageRules({ imageToken, breaks, layout }: PixtralSetup): ImageRules<PromptImage> {
  return {
    placeholder: imageToken,
    expand(image) {
      const grid = layout(image).grid!;
      const rows = new Array<string>(grid.rows).fill(imageToken.repeat(grid.columns));
      return { text: rows.join(breaks.row) + breaks.end, grid };
    },
  };
}

export async function buildPixtral(
  w: Weights,
  config: PixtralConfig,
  json: JsonObject,
): Promise<ImageDecoder> {
  const setup = config.vision;
  const { decoder, vision, project } = await readAroundTower(w, config, json, PIXTRAL_PROBE);
  const features = await readPixtralTower(w, setup, vision);
  return new ImageDecoder(decoder, setup, function* (images, pass) {
    const projected = project(yield* features(images, pass)); // [places, width]
    const own = passOverImages(pass, (image) => setup.layout(image).tokens);
    return yield* own.sites().pass("projector", projected);
  });
}
