import type { Family } from "../family.ts";
import { type BlipConfig, blipImageRules, buildBlip, readBlipConfig } from "./parts/blip-parts.ts";

/**
 * BLIP-2 (Li et al. 2023, arXiv 2301.12597): a Q-Former makes of a ViT's rows as many features as it has queries, which take the
 * places of the `<image>` tokens in front of an OPT, or of what a Flan-T5's encoder reads.
 */
export const blip2: Family<BlipConfig> = {
  modelType: "blip-2",
  readConfig: (config, where, files) => readBlipConfig(config, where, files, false),
  imageRules: ({ vision }) => blipImageRules(vision),
  build: buildBlip,
};
