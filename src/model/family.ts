import type { ImageRules } from "./build-prompt.ts";
import type { JsonObject } from "./config.ts";
import type { DecoderConfig } from "./decoder-config.ts";
import type { Network } from "./network.ts";
import type { PromptImage } from "./vision-setup.ts";
import type { Weights } from "./weights.ts";

/** What a family may need beside config.json. */
export interface FamilyFiles {
  /** Contents of preprocessor_config.json or processor_config.json, if there is one. */
  readonly preprocessor: unknown;
  /** The tokenizer's string for an id. */
  tokenOf(id: number): string;
}

/** One kind of model: how to read its config and how to build its network from a checkpoint. */
export interface Family {
  /** `model_type` of its config.json. */
  readonly modelType: string;
  readConfig(config: JsonObject, where: string, files: FamilyFiles): DecoderConfig;
  /** How its prompts hold images; absent for text models. */
  imageRules?(config: DecoderConfig): ImageRules<PromptImage> | undefined;
  /** Called twice: to check names and shapes, and to load. See `loadWeights`. */
  build(weights: Weights, config: DecoderConfig, json: JsonObject): Promise<Network>;
}
