import { CheckpointError } from "../../../errors.ts";
import { isObject, type JsonObject } from "../json/config-reader.ts";

/**
 * Fields that transformers reads for every family, or for some that say so, and that change the numbers: the value with
 * which they do not, which is the only one that is taken.
 */
const NEUTRAL = {
  /** Layers with sizes of their own. */
  per_layer_config: { expected: "nothing", fits: (value: unknown) => isEmpty(value) },
  /** Another file in place of model.safetensors. */
  transformers_weights: { expected: "nothing", fits: (value: unknown) => value === null },
  /** Attention to later tokens. */
  is_causal: { expected: "true", fits: (value: unknown) => value === true },
  /** Attention to another model's states. */
  add_cross_attention: { expected: "false", fits: (value: unknown) => value === false || value === null },
  /** Attention of the decoder to what the encoder has read. */
  is_encoder_decoder: { expected: "true", fits: (value: unknown) => value === true || value === null },
  /** Attention to all tokens (embedding models). */
  use_bidirectional_attention: {
    expected: "false",
    fits: (value: unknown) => value === false || value === null,
  },
  /** The final norm in the last hidden state. */
  tie_last_hidden_states: { expected: "false", fits: (value: unknown) => value === false || value === null },
} as const;

/** Throws CheckpointError for a field that would change the numbers and is not supported, by its name. */
export function requireNeutral(
  values: JsonObject,
  where: string,
  fields: readonly (keyof typeof NEUTRAL)[] = [],
): void {
  for (const field of ["per_layer_config" as const, ...fields]) {
    const value = values[field];
    if (value === undefined || NEUTRAL[field].fits(value)) continue;
    const found = JSON.stringify(value);
    throw new CheckpointError(
      `${where}: ${field} ${found} is not supported; expected ${NEUTRAL[field].expected}`,
    );
  }
}

/**
 * Throws CheckpointError for a whole model whose `is_causal` its class in transformers reads beside the language model's: there
 * null is true.
 */
export function requireCausalWhole(config: JsonObject, where: string): void {
  requireNeutral({ ...config, is_causal: config["is_causal"] ?? true }, where, ["is_causal"]);
}

function isEmpty(value: unknown): boolean {
  return value === null || (isObject(value) && Object.keys(value).length === 0);
}
