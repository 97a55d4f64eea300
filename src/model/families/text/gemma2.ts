import {
  type LlamaConfig,
  readLlamaConfig,
  readWindowedLayers,
} from "../../checkpoint/config/decoder-config.ts";
import { requireNeutral } from "../../checkpoint/config/neutral-fields.ts";
import { ConfigReader, type JsonObject } from "../../checkpoint/json/config-reader.ts";
import type { Weights } from "../../checkpoint/weights/weights.ts";
import { block } from "../../layers/block.ts";
import { Decoder } from "../../layers/decoder.ts";
import { readRmsNorm } from "../../layers/norm.ts";
import { RopeTables } from "../../layers/rope/rope-tables.ts";
import type { AttentionRule } from "../../walk/masks.ts";
import type { Block } from "../../walk/stack.ts";
import type { DecoderNames, TextFamily } from "../family.ts";
import { readAttention, readEnds, readGatedMlp, rulesOf } from "./llama.ts";

export interface Gemma2Config extends LlamaConfig {
  /** Factor of the scores. */
  readonly scale: number;
  readonly scoreSoftcap?: number;
  readonly logitSoftcap?: number;
}

/** Values that Hugging Face's Gemma2Config has where a config.json is silent. */
const DEFAULTS = {
  vocab_size: 256000,
  hidden_size: 2304,
  intermediate_size: 9216,
  num_hidden_layers: 26,
  num_attention_heads: 8,
  num_key_value_heads: 4,
  head_dim: 256,
  max_position_embeddings: 8192,
  rms_norm_eps: 1e-6,
  tie_word_embeddings: true,
  attention_bias: false,
  query_pre_attn_scalar: 256,
  sliding_window: 4096,
  /** These two are switched off by null. */
  final_logit_softcapping: 30,
  attn_logit_softcapping: 50,
};

function readConfig(values: JsonObject, where: string): Gemma2Config {
  requireNeutral(values, where, ["use_bidirectional_attention"]);
  // Old configs have a hidden_act, which the class does not read.
  const hidden_act = values["hidden_activation"] ?? "gelu_pytorch_tanh";
  const c = new ConfigReader({ ...DEFAULTS, ...values }, where);
  c.count("sliding_window"); // needed by the class even where no layer has the window
  const config = readLlamaConfig(
    { ...values, hidden_act },
    { defaults: DEFAULTS, attentionBias: true },
    where,
  );
  return {
    ...config,
    ...readWindowedLayers(c, config.layers, where, (layer) => layer % 2 === 0),
    scale: c.positive("query_pre_attn_scalar") ** -0.5,
    ...(c.has("attn_logit_softcapping") && { scoreSoftcap: c.positive("attn_logit_softcapping") }),
    ...(c.has("final_logit_softcapping") && { logitSoftcap: c.positive("final_logit_softcapping") }),
  };
}

/**
 * Gemma 2 (Gemma Team 2024, arXiv 2408.00118): norms before and after attention and MLP, soft caps on scores and logits, a
 * window in every other layer, scaled embeddings.
 */
export const gemma2: TextFamily<Gemma2Config> = {
  modelType: "gemma2",
  readConfig,
  build(w, c, _json, names) {
    const rope = new RopeTables(w.device, { rotaryDim: c.headDim, ...c.rope });
    const rules = rulesOf(c);
    return buildGemma2(w, c, { ...names, layers: rules.map((rule) => ({ rule, rope })) });
  },
};

/** Its blocks, with a mask and a rotary embedding for each. */
export async function buildGemma2(
  w: Weights,
  c: Gemma2Config,
  {
    prefix = "model.",
    head = "lm_head",
    layers,
  }: DecoderNames & { readonly layers: readonly { rule: AttentionRule; rope: RopeTables }[] },
): Promise<Decoder> {
  const ends = await readEnds(w, c, { prefix, head });
  const norm = (name: string) => readRmsNorm(w, name, c.width, { eps: c.normEps, offset: 1 });
  const blocks: Block[] = [];
  for (const [i, { rule, rope }] of layers.entries()) {
    const layer = `${prefix}layers.${i}.`;
    const attention = await readAttention(w, c, `${layer}self_attn.`, rope);
    blocks.push(
      block({
        rule,
        attentionNorm: await norm(`${layer}input_layernorm`),
        attention: { ...attention, scale: c.scale, ...(c.scoreSoftcap && { softcap: c.scoreSoftcap }) },
        attentionPostNorm: await norm(`${layer}post_attention_layernorm`),
        mlpNorm: await norm(`${layer}pre_feedforward_layernorm`),
        mlp: await readGatedMlp(w, c, `${layer}mlp.`),
        mlpPostNorm: await norm(`${layer}post_feedforward_layernorm`),
      }),
    );
  }
  return new Decoder(w.device, c, {
    ...ends,
    embeddingScale: Math.sqrt(c.width),
    blocks,
    finalNorm: await norm(`${prefix}norm`),
    ...(c.logitSoftcap && { logitSoftcap: c.logitSoftcap }),
    rope: [...new Set(layers.map(({ rope }) => rope))],
  });
}
