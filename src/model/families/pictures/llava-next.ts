import { LLAVA_NEXT_PINPOINTS } from "../../../images/processors/tiled-processor-config.ts";
import { requireCausalWhole } from "../../checkpoint/config/neutral-fields.ts";
import type { Family } from "../family.ts";
import { llavaProcessor, readLlavaDecoder, readLlavaTower } from "./parts/llava-parts.ts";
import { buildTiled, readTiledSetup, type TiledConfig, tiledImageRules } from "./parts/llava-tiles.ts";

/**
 * LLaVA-NeXT (Liu et al. 2024), also called LLaVA-1.6: LLaVA with pictures cut into tiles. The features of the whole picture
 * come first, then those of the tiles as one map, with a learned feature behind each of its rows.
 */
export const llavaNext: Family<TiledConfig> = {
  modelType: "llava_next",
  readConfig(config, where, files) {
    requireCausalWhole(config, where);
    const tower = readLlavaTower(config, where, files);
    const vision = readTiledSetup(config, where, tower, { pinpoints: LLAVA_NEXT_PINPOINTS });
    return { ...readLlavaDecoder(config, where, files), vision };
  },
  imageRules: ({ vision }) => tiledImageRules(vision),
  processor: (config) => llavaProcessor("LlavaNextProcessor", config),
  build: buildTiled,
};
