import type { DecoderConfig } from "../checkpoint/config/decoder-config.ts";
import {
  neoxRopeParameters,
  ropeParameters,
  ropeParametersOfKind,
} from "../checkpoint/config/rope-config.ts";
import { isObject, type JsonObject } from "../checkpoint/json/config-reader.ts";

/** What the tensors that were written no longer have. */
const GONE = new Set(["dtype", "torch_dtype", "quantization_config", "compression_config"]);

/**
 * A model's config.json such that transformers 4.46 and 5 make the same of it: RoPE in both spellings, and written out what
 * either of them only concludes. `dtype` is PyTorch's name.
 */
export function exportedConfig(
  config: JsonObject,
  decoder: Pick<DecoderConfig, "vision" | "tied" | "rope" | "localRope">,
  dtype: string,
): JsonObject {
  const { vision, tied } = decoder;
  const kept = without(config);
  const ties = { tie_word_embeddings: tied };
  if (!vision) return { ...kept, ...withBothRopes(kept, decoder), ...ties, torch_dtype: dtype };
  const text = kept["text_config"] as JsonObject;
  const { image_token_id: _, ...rest } = kept;
  return {
    ...rest,
    text_config: { ...text, ...withBothRopes(text, decoder), ...ties },
    ...ties,
    image_token_index: vision.imageTokenId,
    ...(vision.fixed && { image_seq_length: vision.fixed.tokens }),
    torch_dtype: dtype,
  };
}

/** A config that stays as it is but for the dtype. */
export function keptConfig(config: JsonObject, dtype: string): JsonObject {
  return { ...without(config), torch_dtype: dtype };
}

function without(json: JsonObject): JsonObject {
  const entries = Object.entries(json).filter(([key]) => !GONE.has(key));
  return Object.fromEntries(entries.map(([key, value]) => [key, isObject(value) ? without(value) : value]));
}

/** RoPE as 4.x reads it, with `rope_theta` and `rope_scaling`, and in the `rope_parameters` that 5 writes. */
function withBothRopes(
  values: JsonObject,
  { rope, localRope }: Pick<DecoderConfig, "rope" | "localRope">,
): JsonObject {
  if (!rope) return {};
  if (localRope) return withBothRopesByKind(values);
  if (values["model_type"] === "phi3") return phi3Ropes(values);
  const isNeox = values["model_type"] === "gpt_neox";
  const parameters = isNeox ? neoxRopeParameters(values) : ropeParameters(values);
  const { rope_theta: theta, ...rest } = parameters;
  const { partial_rotary_factor: share, ...unshared } = rest;
  const scaling = isNeox ? unshared : rest;
  return {
    ...(isNeox ? { rotary_emb_base: theta, rotary_pct: share } : { rope_theta: theta }),
    rope_scaling: scaling["rope_type"] === "default" ? null : scaling,
    rope_parameters: parameters,
  };
}

/** The same of Gemma 3, whose layers with a window have a RoPE of their own. */
function withBothRopesByKind(values: JsonObject): JsonObject {
  const { rope_theta: theta, ...full } = ropeParametersOfKind(values, "full_attention");
  const local = ropeParametersOfKind(values, "sliding_attention");
  return {
    rope_theta: theta,
    rope_local_base_freq: local["rope_theta"],
    rope_scaling: full["rope_type"] === "default" ? null : full,
    rope_parameters: { full_attention: { ...full, rope_theta: theta }, sliding_attention: local },
  };
}

/** Phi-3's, whose LongRoPE has but its factors in `rope_scaling`: 4.x wants no more, and reads the rest beside it, as 5 does. */
function phi3Ropes(values: JsonObject): JsonObject {
  const {
    rope_theta,
    rope_type,
    type: _,
    original_max_position_embeddings: __,
    ...parameters
  } = ropeParameters(values);
  const { partial_rotary_factor = values["partial_rotary_factor"] ?? 1, ...scaling } = parameters;
  const isPlain = rope_type === "default";
  return {
    rope_theta,
    partial_rotary_factor,
    rope_scaling: isPlain ? null : { ...scaling, type: "longrope" },
    rope_parameters: {
      ...parameters,
      partial_rotary_factor,
      rope_theta,
      rope_type: isPlain ? rope_type : "longrope",
    },
  };
}

/** tokenizer_config.json for both: of a class that follows tokenizer.json in everything, as is done here. */
export function exportedTokenizerConfig(config: JsonObject, chatTemplate: string | undefined): JsonObject {
  const { extra_special_tokens: extra, ...rest } = config;
  return {
    ...rest,
    // 4.x knows a list of them under another name, and 5 both names.
    ...(Array.isArray(extra)
      ? { additional_special_tokens: extra }
      : extra !== undefined && { extra_special_tokens: extra }),
    // 4.46 does not look for a file.
    ...(chatTemplate !== undefined && { chat_template: chatTemplate }),
    tokenizer_class: "PreTrainedTokenizerFast",
  };
}

/** preprocessor_config.json for both, from itself or from the processor_config.json that 5 has it in. */
export function exportedPreprocessor(preprocessor: unknown, processor: unknown): JsonObject | undefined {
  const inner = isObject(processor) ? processor["image_processor"] : undefined;
  const config = isObject(preprocessor) ? preprocessor : isObject(inner) ? inner : undefined;
  const type = config?.["image_processor_type"];
  if (typeof type !== "string") return config;
  return { ...config, image_processor_type: type.replace(/(Fast|Pil)$/, "") };
}

/** generation_config.json from what a config says of it. */
export function exportedGeneration(config: JsonObject): JsonObject {
  const text = isObject(config["text_config"]) ? config["text_config"] : config;
  const ids = ["bos_token_id", "eos_token_id", "pad_token_id"].map((key) => [key, config[key] ?? text[key]]);
  return Object.fromEntries(ids.filter(([, id]) => id !== undefined));
}
