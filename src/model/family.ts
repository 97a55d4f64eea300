import type { JsonObject } from "./config.ts";
import type { DecoderConfig } from "./decoder-config.ts";
import type { Network } from "./network.ts";
import type { Weights } from "./weights.ts";

/** One kind of model: how to read its config and how to build its network from a checkpoint. */
export interface Family {
  /** `model_type` of its config.json. */
  readonly modelType: string;
  readConfig(config: JsonObject, where: string): DecoderConfig;
  /** Called twice: to check names and shapes, and to load. See `loadWeights`. */
  build(weights: Weights, config: DecoderConfig): Promise<Network>;
}
