import { CheckpointError } from "../../../errors.ts";
import type { ActivationKind } from "../../../kernels/elementwise/activation.ts";
import { ConfigReader, type JsonObject } from "../json/config-reader.ts";
import { activationKind } from "./activation-kind.ts";
import { requireNeutral } from "./neutral-fields.ts";
import { type RopeConfig, readRope } from "./rope-config.ts";
import type { VisionSetup } from "./vision-setup.ts";

/** What a Llama-like decoder's config.json (or the text_config of a vision-language model) says. */
export interface DecoderConfig {
  readonly layers: number;
  /** Width of the residual stream. */
  readonly width: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly mlpWidth: number;
  /** Rows of the embedding; may be more than the tokenizer has tokens. */
  readonly vocab: number;
  /** Most positions that the model was made for. */
  readonly context: number;
  readonly normEps: number;
  readonly activation: ActivationKind;
  readonly rope: RopeConfig;
  /** Sliding attention window: keys that a query sees, itself included. */
  readonly window?: number;
  /** The output matrix is the embedding. */
  readonly tied: boolean;
  readonly attentionBias: boolean;
  readonly mlpBias: boolean;
  /**
   * `task_vector_layer`, which no other library reads: the layer whose task vectors are to be patched unless one is named;
   * whoever made the checkpoint chose it on validation items.
   */
  readonly taskVectorLayer?: number;
  /** How pictures get in, for vision-language models. */
  readonly vision?: VisionSetup;
}

/** Which fields a family's class in transformers reads; the others are ignored there, and so they are here. */
export interface DecoderFields {
  /** Of the config class, for the sparse configs that published checkpoints have. */
  readonly defaults: JsonObject;
  /** `sliding_window` */
  readonly window?: boolean;
  /** `attention_bias` (of q, k, v and o) and `mlp_bias` */
  readonly biases?: boolean;
}

/**
 * Reads a config in the spelling of published files (`rope_theta`, `rope_scaling`) or in that of transformers 5
 * (`rope_parameters`). Throws CheckpointError naming the field that is missing or makes no sense.
 */
export function readDecoderConfig(
  values: JsonObject,
  { defaults, window, biases }: DecoderFields,
  where: string,
): DecoderConfig {
  requireNeutral(values, where, ["is_causal"]);
  // A null takes the default's place: where the class has no value of its own for it, it is missing.
  const c = new ConfigReader({ ...defaults, ...values }, where);
  const heads = c.count("num_attention_heads");
  const width = c.count("hidden_size");
  const kvHeads = c.count("num_key_value_heads", heads);
  if (heads % kvHeads !== 0) {
    throw new CheckpointError(
      `${where}: ${heads} heads (num_attention_heads) cannot share ${kvHeads} key-value heads (num_key_value_heads)`,
    );
  }
  const layers = c.count("num_hidden_layers");
  const taskVectorLayer = c.has("task_vector_layer") ? c.count("task_vector_layer", undefined, 0) : undefined;
  if (taskVectorLayer !== undefined && taskVectorLayer >= layers) {
    throw new CheckpointError(
      `${where}: task_vector_layer is ${taskVectorLayer}, but there are ${layers} layers`,
    );
  }
  return {
    layers,
    width,
    heads,
    kvHeads,
    headDim: c.count("head_dim", width / heads),
    mlpWidth: c.count("intermediate_size"),
    vocab: c.count("vocab_size"),
    context: c.count("max_position_embeddings"),
    normEps: c.number("rms_norm_eps"),
    activation: activationKind(c.string("hidden_act"), where),
    rope: readRope(values, c.count("max_position_embeddings"), where),
    window: window && c.has("sliding_window") ? c.count("sliding_window") : undefined,
    tied: c.boolean("tie_word_embeddings"),
    attentionBias: biases ? c.boolean("attention_bias") : false,
    mlpBias: biases ? c.boolean("mlp_bias") : false,
    ...(taskVectorLayer !== undefined && { taskVectorLayer }),
  };
}
