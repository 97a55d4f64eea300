import type { IntermediateLayers } from "../checkpoint/config/canvas-tower-config.ts";
import type { DecoderConfig } from "../checkpoint/config/decoder-config.ts";
import type { JsonObject } from "../checkpoint/json/config-reader.ts";
import type { Weights } from "../checkpoint/weights/weights.ts";
import type { Decoder } from "../layers/decoder.ts";
import type { ImageRules } from "../prompt/image-rules.ts";
import type { PromptImage } from "../prompt/prompt-image.ts";
import type { Tokenizer } from "../prompt/tokenizer.ts";
import type { Network } from "../walk/network.ts";

/** What a family may need beside config.json. */
export interface FamilyFiles {
  /** Contents of preprocessor_config.json or processor_config.json, if there is one. */
  readonly preprocessor: unknown;
  /** Contents of processor_config.json, if there is one. */
  readonly processor?: unknown;
  /** The tokenizer's string for an id. */
  tokenOf(id: number): string;
  /** And the other way; undefined where there is no such token. */
  idOf(token: string): number | undefined;
  /** Named special tokens of tokenizer_config.json: `{ eos_token: "</s>", … }`. */
  readonly specialTokens?: Readonly<Record<string, string>>;
  /** The tokenizer's end token. */
  readonly eosId: number | undefined;
  /** Those that the family has beside, by their folder. */
  readonly tokenizers?: Readonly<Record<string, Pick<Tokenizer, "encode">>>;
  /** What is read inside the tower of Llama 3.2 Vision; see `LoadOptions`. */
  readonly intermediateLayers?: IntermediateLayers | undefined;
}

/** One kind of model: how to read its config and how to build its network from a checkpoint. */
export interface Family<Config extends DecoderConfig = DecoderConfig> {
  /** `model_type` of its config.json. */
  readonly modelType: string;
  /** Folders of tokenizers beside the model's own (a Q-Former's). */
  readonly tokenizers?: readonly string[];
  readConfig(config: JsonObject, where: string, files: FamilyFiles): Config;
  /** How its prompts hold images; absent for text models. */
  imageRules?(config: Config): ImageRules<PromptImage> | undefined;
  /**
   * processor_config.json as transformers reads it, for models that take pictures and whose tensors are exported under the names of
   * LLaVA's. What is without it is exported under its own names, with its own config.
   */
  processor?(config: Config): JsonObject | undefined;
  /** Called twice: to check names and shapes, and to load. See `loadWeights`. */
  build(weights: Weights, config: Config, json: JsonObject): Promise<Network>;
}

/** Where a decoder's tensors are, where it is a part of a larger model. */
export interface DecoderNames {
  /** In front of the names of all but the head: `language_model.model.`. */
  readonly prefix?: string;
  /** The module of the unembedding. */
  readonly head?: string;
}

/** A decoder of words by itself; a vision-language model may have it inside. */
export interface TextFamily<Config extends DecoderConfig = DecoderConfig> extends Family<Config> {
  /**
   * How its names differ from Llama's: what stands in front of them where it is a model by itself (default `model.`), what still
   * does inside of another, and what the embedding is called (default `embed_tokens`).
   */
  readonly names?: { readonly alone: string; readonly inside?: string; readonly embedding?: string };
  build(weights: Weights, config: Config, json: JsonObject, names?: DecoderNames): Promise<Decoder>;
}
