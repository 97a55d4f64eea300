import { readLlamaConfig, readWindowedLayers } from "../../checkpoint/config/decoder-config.ts";
import { requireNeutral } from "../../checkpoint/config/neutral-fields.ts";
import { type RopeConfig, readRopeOfKind } from "../../checkpoint/config/rope-config.ts";
import { ConfigReader, type JsonObject } from "../../checkpoint/json/config-reader.ts";
import type { Weights } from "../../checkpoint/weights/weights.ts";
import type { Decoder } from "../../layers/decoder.ts";
import { RopeTables } from "../../layers/rope/rope-tables.ts";
import type { AttentionRule } from "../../walk/masks.ts";
import type { DecoderNames, TextFamily } from "../family.ts";
import { buildGemma2, type Gemma2Config } from "./gemma2.ts";
import { isWindowed, rulesOf } from "./llama.ts";

export interface Gemma3TextConfig extends Gemma2Config {
  readonly localRope: RopeConfig;
}

/** Values that Hugging Face's Gemma3TextConfig has where a config.json is silent. */
const DEFAULTS = {
  vocab_size: 262208,
  hidden_size: 2304,
  intermediate_size: 9216,
  num_hidden_layers: 26,
  num_attention_heads: 8,
  num_key_value_heads: 4,
  head_dim: 256,
  max_position_embeddings: 131072,
  rms_norm_eps: 1e-6,
  tie_word_embeddings: true,
  attention_bias: false,
  query_pre_attn_scalar: 256,
  sliding_window: 4096,
  sliding_window_pattern: 6,
};

/** Reads a config of Gemma 3's language model. Its class has a soft cap for scores in its config, and does not apply it. */
export function readGemma3Text(values: JsonObject, where: string): Gemma3TextConfig {
  requireNeutral(values, where, ["use_bidirectional_attention"]);
  const c = new ConfigReader({ ...DEFAULTS, ...values }, where);
  c.count("sliding_window"); // needed by the class even where no layer has the window
  // Old configs have a hidden_act, which the class does not read.
  const hidden_act = values["hidden_activation"] ?? "gelu_pytorch_tanh";
  const given = { ...values, hidden_act, rope_scaling: null, rope_parameters: null };
  const config = readLlamaConfig(given, { defaults: DEFAULTS, attentionBias: true }, where);
  const every = c.count("sliding_window_pattern");
  const windows = readWindowedLayers(c, config.layers, where, (layer) => (layer + 1) % every !== 0, {
    ropeByKind: true,
  });
  return {
    ...config,
    ...windows,
    qkNorm: true,
    normOffset: 1,
    rope: readRopeOfKind(values, "full_attention", config.context, where),
    localRope: readRopeOfKind(values, "sliding_attention", config.context, where),
    scale: c.positive("query_pre_attn_scalar") ** -0.5,
    ...(c.has("final_logit_softcapping") && { logitSoftcap: c.positive("final_logit_softcapping") }),
  };
}

/**
 * Gemma 3 (Gemma Team 2025, arXiv 2503.19786) without pictures: Gemma 2's block with norms on queries and keys in place of
 * the soft cap on scores; layers with a window turn by a RoPE of their own.
 */
export const gemma3Text: TextFamily<Gemma3TextConfig> = {
  modelType: "gemma3_text",
  readConfig: readGemma3Text,
  build: (w, c, _json, names) => buildGemma3(w, c, names),
};

/** With masks of its own for each layer, the language model of Gemma 3 with pictures. */
export function buildGemma3(
  w: Weights,
  c: Gemma3TextConfig,
  names: DecoderNames = {},
  rules: readonly AttentionRule[] = rulesOf(c),
): Promise<Decoder> {
  const [rope, local] = [c.rope, c.localRope].map(
    (each) => new RopeTables(w.device, { rotaryDim: c.headDim, ...each }),
  ) as [RopeTables, RopeTables];
  const layers = rules.map((rule, i) => ({ rule, rope: isWindowed(c, i) ? local : rope }));
  return buildGemma2(w, c, { ...names, layers });
}
