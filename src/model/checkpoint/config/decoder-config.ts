import { CheckpointError } from "../../../errors.ts";
import type { ActivationKind } from "../../../kernels/elementwise/activation.ts";
import { ConfigReader, isObject, type JsonObject } from "../json/config-reader.ts";
import { activationKind } from "./activation-kind.ts";
import { requireWholeHeads } from "./encoder-config.ts";
import { requireNeutral } from "./neutral-fields.ts";
import { type RopeConfig, readRope } from "./rope-config.ts";
import type { VisionSetup } from "./vision-setup.ts";

/** What is known of every decoder from its config.json (or the text_config of a vision-language model). */
export interface DecoderConfig {
  /** Blocks of the stack. */
  readonly layers: number;
  /** Width of the residual stream. */
  readonly width: number;
  /** Heads of queries, of a layer. */
  readonly heads: number;
  /** Heads of keys and values; fewer than `heads` with grouped-query attention. */
  readonly kvHeads: number;
  /** Features of a head. */
  readonly headDim: number;
  /** Hidden features of the MLP. */
  readonly mlpWidth: number;
  /** Rows of the embedding; may be more than the tokenizer has tokens. */
  readonly vocab: number;
  /** Where the embedding has more rows than there are logits: how many. */
  readonly inputIds?: number;
  /** Most positions that the model was made for; Infinity where only distances count. */
  readonly context: number;
  /** Added to the variance, or the mean square, in norms. */
  readonly normEps: number;
  /** Of the MLP. */
  readonly activation: ActivationKind;
  /** Absent where positions are learned. */
  readonly rope?: RopeConfig;
  /** RoPE of the layers with a window, where they have one of their own (Gemma 3). */
  readonly localRope?: RopeConfig;
  /** Sliding attention window: keys that a query sees, itself included. */
  readonly window?: number | undefined;
  /** The layers that have the window, if it is not all. */
  readonly windowedLayers?: readonly boolean[];
  /** The output matrix is the embedding. */
  readonly tied: boolean;
  /** Norms on queries and keys. */
  readonly qkNorm?: boolean;
  /** Attention and MLP both read what enters the block. */
  readonly parallel?: boolean;
  /**
   * `task_vector_layer`, which no other library reads: the layer whose task vectors are to be patched unless one is named;
   * whoever made the checkpoint chose it on validation items.
   */
  readonly taskVectorLayer?: number;
  /** Cross-attention to the rows of another stack, in some layers. */
  readonly cross?: CrossConfig;
  /** Set where an encoder reads the prompt, and this decoder answers. */
  readonly encoder?: EncoderSetup;
  /** The tokens of a prompt see those behind them too (PaliGemma); those of an answer do not. */
  readonly promptBothWays?: boolean;
  /** How pictures get in, for vision-language models. */
  readonly vision?: VisionSetup;
}

/** The encoder of an encoder-decoder, and how its decoder begins. */
export interface EncoderSetup {
  readonly layers: number;
  readonly width: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly mlpWidth: number;
  /** Id of the token that the decoder reads first. */
  readonly startId: number;
}

/** Attention to the rows of another stack. */
export interface CrossConfig {
  /** What it reads; default images. */
  readonly reads?: "images" | "sources";
  /** It takes the place of self-attention; its MLP is then the layer's own. */
  readonly replaces?: boolean;
  /** The layers that have it: in front of them with an MLP of its own, or in their middle without. */
  readonly layers: readonly number[];
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  /** Of its own MLP; absent where it has none. */
  readonly mlpWidth?: number;
  /** Norms on queries and keys. */
  readonly qkNorm: boolean;
  /** Numbers that a row's gate has: 1, or the width; absent where there is no gate. */
  readonly gateWidth?: number;
}

/** In front of layers, with gates (Flamingo). */
export type GatedCrossConfig = CrossConfig & Required<Pick<CrossConfig, "mlpWidth" | "gateWidth">>;

/** What a decoder of Llama's kind says beside. */
export interface LlamaConfig extends DecoderConfig {
  readonly rope: RopeConfig;
  /** Added to the weights of norms, which Gemma stores less one. Default 0. */
  readonly normOffset?: number;
  /** Of q, k and v. */
  readonly attentionBias: boolean;
  /** Of the attention's output projection. */
  readonly outputBias: boolean;
  readonly mlpBias: boolean;
}

/** Which fields a family's class in transformers reads; the others are ignored there, and so they are here. */
export interface DecoderFields {
  /** Of the config class, for the sparse configs that published checkpoints have. */
  readonly defaults: JsonObject;
  /** `sliding_window` */
  readonly window?: boolean;
  /** `attention_bias`, of q, k, v and o */
  readonly attentionBias?: boolean;
  /** `mlp_bias` */
  readonly mlpBias?: boolean;
}

/**
 * Reads a config in the spelling of published files (`rope_theta`, `rope_scaling`) or in that of transformers 5
 * (`rope_parameters`). Throws CheckpointError naming the field that is missing or makes no sense.
 */
export function readLlamaConfig(
  values: JsonObject,
  { defaults, window, attentionBias, mlpBias }: DecoderFields,
  where: string,
): LlamaConfig {
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
  if (!c.has("head_dim")) requireWholeHeads({ width, heads }, where);
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
    attentionBias: attentionBias ? c.boolean("attention_bias") : false,
    outputBias: attentionBias ? c.boolean("attention_bias") : false,
    mlpBias: mlpBias ? c.boolean("mlp_bias") : false,
    ...readTaskVectorLayer(c, layers, where),
  };
}

/** `task_vector_layer`, where a config has it. Throws CheckpointError for a layer that there is none of. */
export function readTaskVectorLayer(
  c: ConfigReader,
  layers: number,
  where: string,
): Pick<DecoderConfig, "taskVectorLayer"> {
  if (!c.has("task_vector_layer")) return {};
  const taskVectorLayer = c.count("task_vector_layer", undefined, 0);
  if (taskVectorLayer < layers) return { taskVectorLayer };
  throw new CheckpointError(
    `${where}: task_vector_layer is ${taskVectorLayer}, but there are ${layers} layers`,
  );
}

/** The kinds of layers that `layer_types` knows. */
const LAYER_KINDS = ["full_attention", "sliding_attention"];

/**
 * The `sliding_window`, and which layers have it, from `layer_types` or, where the config has none, from `otherwise`; no window
 * where no layer has it. Throws CheckpointError for other kinds of layers, RoPE by kind unless the family has that
 * (`ropeByKind`), and a window without a size.
 */
export function readWindowedLayers(
  c: ConfigReader,
  layers: number,
  where: string,
  otherwise: (layer: number) => boolean,
  { ropeByKind = false }: { ropeByKind?: boolean } = {},
): Pick<DecoderConfig, "window" | "windowedLayers"> {
  if (!ropeByKind) refuseRopeByKind(c, where);
  const types = c.value("layer_types");
  if (types !== undefined) {
    const isKind = (type: unknown) => LAYER_KINDS.includes(type as string);
    if (!Array.isArray(types) || types.length !== layers || !types.every(isKind)) {
      throw new CheckpointError(
        `${where}: expected layer_types to be ${layers} (num_hidden_layers) of ${LAYER_KINDS.join(", ")}, ` +
          `found ${JSON.stringify(types)}`,
      );
    }
  }
  const windowedLayers = Array.from({ length: layers }, (_, layer) =>
    Array.isArray(types) ? types[layer] === "sliding_attention" : otherwise(layer),
  );
  if (!windowedLayers.includes(true)) return {};
  if (!c.has("sliding_window")) {
    throw new CheckpointError(
      `${where}: layers have sliding_attention (layer_types), but there is no sliding_window in use`,
    );
  }
  const window = c.count("sliding_window");
  return windowedLayers.includes(false) ? { window, windowedLayers } : { window };
}

/** In these families transformers takes what stands under a kind's name for that kind's own. */
function refuseRopeByKind(c: ConfigReader, where: string): void {
  for (const key of ["rope_scaling", "rope_parameters"]) {
    const section = c.value(key);
    const kind = isObject(section) ? LAYER_KINDS.find((name) => name in section) : undefined;
    if (kind === undefined) continue;
    throw new CheckpointError(
      `${where}: ${key} of ${kind} is not supported; expected the same for all layers`,
    );
  }
}
