import { readProcessorConfig } from "../../../images/processors/processor-config.ts";
import {
  patchesPerSide,
  rowsPerImage,
  type SquareVisionSetup,
  type VisionConfig,
} from "../../checkpoint/config/vision-config.ts";
import type { ImageLayout } from "../../checkpoint/config/vision-setup.ts";
import { ImageDecoder } from "../../layers/bridges/image-decoder.ts";
import { rowsOf, towerFeatures } from "../../layers/towers/tower-features.ts";
import type { ImageRules } from "../../prompt/image-rules.ts";
import type { PromptImage } from "../../prompt/prompt-image.ts";
import { passOverImages } from "../../walk/input-passes.ts";
import type { Family } from "../family.ts";
import {
  buildPixtral,
  hasPixtralTower,
  type PixtralConfig,
  pixtralImageRules,
  readPixtralConfig,
} from "./llava-pixtral.ts";
import {
  type LlavaConfig,
  llavaProcessor,
  readLlavaDecoder,
  readLlavaParts,
  readLlavaTower,
} from "./parts/llava-parts.ts";

/** How LLaVA prompts hold images: each `<image>` becomes one placeholder a feature, in one plain grid. */
export function llavaImageRules(
  setup: Pick<SquareVisionSetup, "imageToken" | "layout">,
): ImageRules<PromptImage> {
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

/**
 * LLaVA-1.5 (Liu et al. 2023, arXiv 2310.03744): the features of a CLIP, SigLIP or Pixtral tower, projected by a two-layer MLP,
 * take the places of the `<image>` tokens in a decoder of words.
 */
export const llava: Family<LlavaConfig | PixtralConfig> = {
  modelType: "llava",
  readConfig(config, where, files) {
    if (hasPixtralTower(config)) return readPixtralConfig(config, where, files);
    const { strategy, preprocessor, ...setup } = readLlavaTower(config, where, files);
    const fixed = squareLayout(setup.tower, strategy);
    const processor = readProcessorConfig(preprocessor);
    const vision: SquareVisionSetup = { ...setup, fixed, layout: () => fixed, processor };
    return { ...readLlavaDecoder(config, where, files), vision };
  },
  imageRules: (config) =>
    isPixtral(config) ? pixtralImageRules(config.vision) : llavaImageRules(config.vision),
  processor: (config) => (isPixtral(config) ? undefined : llavaProcessor("LlavaProcessor", config)),
  async build(w, config, json) {
    if (isPixtral(config)) return await buildPixtral(w, config, json);
    const setup = config.vision;
    const { decoder, tower, project } = await readLlavaParts(w, config, json);
    return new ImageDecoder(decoder, setup, function* (images, pass) {
      const projected = project(yield* towerFeatures(tower, setup, images, pass)); // [places, width]
      const own = passOverImages(
        pass,
        rowsOf(setup, ({ tokens }) => tokens),
      );
      return yield* own.sites().pass("projector", projected);
    });
  },
};

function isPixtral(config: LlavaConfig | PixtralConfig): config is PixtralConfig {
  return config.vision.tower.kind === "pixtral";
}
