import {
  type DecoderFields,
  type LlamaConfig,
  readLlamaConfig,
  readWindowedLayers,
} from "../../checkpoint/config/decoder-config.ts";
import { ConfigReader, type JsonObject } from "../../checkpoint/json/config-reader.ts";
import type { TextFamily } from "../family.ts";
import { buildLlama } from "./llama.ts";

/** Values that Hugging Face's Qwen2Config has where a config.json is silent. */
export const QWEN2_DEFAULTS = {
  vocab_size: 151936,
  hidden_size: 4096,
  intermediate_size: 22016,
  num_hidden_layers: 32,
  num_attention_heads: 32,
  num_key_value_heads: 32,
  hidden_act: "silu",
  max_position_embeddings: 32768,
  rms_norm_eps: 1e-6,
  tie_word_embeddings: false,
  use_sliding_window: false,
  max_window_layers: 28,
};

/** Reads a config whose window is in the upper layers only, and only where it is switched on. */
export function readQwenConfig(values: JsonObject, fields: DecoderFields, where: string): LlamaConfig {
  const heads =
    values["num_key_value_heads"] === null ? { num_key_value_heads: values["num_attention_heads"] } : {};
  const config = readLlamaConfig({ ...values, ...heads }, fields, where);
  const given = { sliding_window: 4096, ...fields.defaults, ...values };
  const switchedOn = new ConfigReader(given, where).boolean("use_sliding_window");
  const c = new ConfigReader({ ...given, ...(!switchedOn && { sliding_window: null }) }, where);
  const first = c.has("sliding_window") ? c.count("max_window_layers", undefined, 0) : config.layers;
  return { ...config, ...readWindowedLayers(c, config.layers, where, (layer) => layer >= first) };
}

/** Qwen 2 and 2.5 (Yang et al. 2024, arXiv 2407.10671): Llama with biases on q, k and v. */
export const qwen2: TextFamily<LlamaConfig> = {
  modelType: "qwen2",
  readConfig: (values, where) => ({
    ...readQwenConfig(values, { defaults: QWEN2_DEFAULTS }, where),
    attentionBias: true,
  }),
  build: buildLlama,
};
