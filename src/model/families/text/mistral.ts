import { type LlamaConfig, readLlamaConfig } from "../../checkpoint/config/decoder-config.ts";
import type { TextFamily } from "../family.ts";
import { buildLlama } from "./llama.ts";

/** Values that Hugging Face's MistralConfig has where a config.json is silent. */
const DEFAULTS = {
  hidden_size: 4096,
  intermediate_size: 14336,
  num_hidden_layers: 32,
  num_attention_heads: 32,
  num_key_value_heads: 8,
  vocab_size: 32000,
  max_position_embeddings: 131072,
  rms_norm_eps: 1e-6,
  hidden_act: "silu",
  sliding_window: 4096,
  tie_word_embeddings: false,
};

/** Mistral 7B (Jiang et al. 2023, arXiv 2310.06825): Llama's block with a sliding attention window. */
export const mistral: TextFamily<LlamaConfig> = {
  modelType: "mistral",
  readConfig: (config, where) => readLlamaConfig(config, { defaults: DEFAULTS, window: true }, where),
  build: buildLlama,
};
