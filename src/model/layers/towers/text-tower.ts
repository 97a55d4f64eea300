import { add } from "../../../kernels/elementwise/elementwise.ts";
import { gatherRows } from "../../../kernels/movement/gather.ts";
import type { Tensor } from "../../../tensor/tensor.ts";
import { activationKind } from "../../checkpoint/config/activation-kind.ts";
import { type EncoderConfig, requireWholeHeads } from "../../checkpoint/config/encoder-config.ts";
import { requireNeutral } from "../../checkpoint/config/neutral-fields.ts";
import { ConfigReader, type JsonObject } from "../../checkpoint/json/config-reader.ts";
import type { Weights } from "../../checkpoint/weights/weights.ts";
import type { Prompt } from "../../prompt/prompt.ts";
import { causal, full } from "../../walk/masks.ts";
import type { Pass } from "../../walk/pass.ts";
import type { Walk } from "../../walk/site-events.ts";
import { Stack } from "../../walk/stack.ts";
import { type Norm, readLayerNorm } from "../norm.ts";
import { readEncoderBlocks } from "./encoder-blocks.ts";

/** The text transformer of CLIP or SigLIP. */
export interface TextTowerConfig extends EncoderConfig {
  readonly kind: "clip" | "siglip";
  readonly vocab: number;
  /** Most positions; SigLIP's texts always have just as many. */
  readonly context: number;
  /** CLIP only: whose state stands for a text. */
  readonly eosTokenId?: number;
}

/** Where a text_config is silent: Hugging Face's CLIPTextConfig and SiglipTextConfig. */
export const TEXT_TOWER_DEFAULTS: Readonly<Record<TextTowerConfig["kind"], JsonObject>> = {
  clip: {
    vocab_size: 49408,
    hidden_size: 512,
    intermediate_size: 2048,
    num_hidden_layers: 12,
    num_attention_heads: 8,
    max_position_embeddings: 77,
    hidden_act: "quick_gelu",
    layer_norm_eps: 1e-5,
    eos_token_id: 49407,
  },
  siglip: {
    vocab_size: 32000,
    hidden_size: 768,
    intermediate_size: 3072,
    num_hidden_layers: 12,
    num_attention_heads: 12,
    max_position_embeddings: 64,
    hidden_act: "gelu_pytorch_tanh",
    layer_norm_eps: 1e-6,
  },
};

export function readTextTowerConfig(
  kind: TextTowerConfig["kind"],
  values: JsonObject,
  where: string,
): TextTowerConfig {
  requireNeutral(values, where, kind === "clip" ? ["is_causal"] : []);
  const c = new ConfigReader({ ...TEXT_TOWER_DEFAULTS[kind], ...values }, where);
  const config: TextTowerConfig = {
    kind,
    layers: c.count("num_hidden_layers"),
    width: c.count("hidden_size"),
    heads: c.count("num_attention_heads"),
    mlpWidth: c.count("intermediate_size"),
    normEps: c.number("layer_norm_eps"),
    activation: activationKind(c.string("hidden_act"), where),
    vocab: c.count("vocab_size"),
    context: c.count("max_position_embeddings"),
    ...(kind === "clip" && { eosTokenId: c.count("eos_token_id", undefined, 0) }),
  };
  requireWholeHeads(config, where);
  return config;
}

interface TextTowerWeights {
  /** [vocab, width] */
  readonly tokens: Tensor;
  /** [context, width] */
  readonly positions: Tensor;
  readonly stack: Stack;
  readonly finalNorm: Norm;
}

/** Learned positions, pre-norm blocks; causal attention in CLIP, full in SigLIP. */
export class TextTower {
  readonly config: TextTowerConfig;
  readonly #w: TextTowerWeights;

  constructor(config: TextTowerConfig, weights: TextTowerWeights) {
    this.config = config;
    this.#w = weights;
  }

  /** Texts one after the other → [rows, width], after the final norm. Sites: embed, those of the blocks, final_norm. */
  *encode(prompts: readonly Prompt[], pass: Pass): Walk<Tensor> {
    const at = pass.sites();
    const ids = pass.device.tensor(Uint32Array.from(prompts.flatMap((p) => p.ids)), { dtype: "u32" });
    const embedded = pass.device.scope(() =>
      add(gatherRows(this.#w.tokens, ids), gatherRows(this.#w.positions, pass.positions)),
    );
    const x = yield* this.#w.stack.run(yield* at.pass("embed", embedded), pass);
    return yield* at.pass("final_norm", this.#w.finalNorm(x));
  }

  /**
   * The position whose state stands for a text: SigLIP's last; CLIP's first end token, or (where the config has the
   * legacy end token id 2) the largest id, as transformers does for published checkpoints.
   */
  pooledPosition({ ids, last }: Prompt): number {
    const { kind, eosTokenId } = this.config;
    if (kind === "siglip") return last;
    if (eosTokenId === 2) return ids.indexOf(Math.max(...ids));
    const end = ids.indexOf(eosTokenId!);
    return end < 0 ? 0 : end; // argmax of "is the end token" over none is 0 in transformers too
  }
}

export async function readTextTower(w: Weights, config: TextTowerConfig, prefix: string): Promise<TextTower> {
  const { kind, vocab, context, width, normEps } = config;
  const rule = kind === "clip" ? causal : full;
  return new TextTower(config, {
    tokens: await w.tensor(`${prefix}embeddings.token_embedding.weight`, [vocab, width]),
    positions: await w.tensor(`${prefix}embeddings.position_embedding.weight`, [context, width]),
    stack: new Stack(w.device, await readEncoderBlocks(w, prefix, config, rule)),
    finalNorm: await readLayerNorm(w, `${prefix}final_layer_norm`, width, normEps),
  });
}
