import { type LlamaConfig, readLlamaConfig } from "../../checkpoint/config/decoder-config.ts";
import { requireNeutral } from "../../checkpoint/config/neutral-fields.ts";
import type { JsonObject } from "../../checkpoint/json/config-reader.ts";
import type { Weights } from "../../checkpoint/weights/weights.ts";
import { block } from "../../layers/block.ts";
import { Decoder } from "../../layers/decoder.ts";
import { readRmsNorm } from "../../layers/norm.ts";
import { RopeTables } from "../../layers/rope/rope-tables.ts";
import { type AttentionRule, causal } from "../../walk/masks.ts";
import type { Block } from "../../walk/stack.ts";
import type { DecoderNames, TextFamily } from "../family.ts";
import { readAttention, readEnds, readGatedMlp } from "./llama.ts";

export interface GemmaConfig extends LlamaConfig {
  /** Of PaliGemma alone. */
  readonly logitSoftcap?: number;
}

/** Values that Hugging Face's GemmaConfig has where a config.json is silent. */
const DEFAULTS = {
  vocab_size: 256000,
  hidden_size: 3072,
  intermediate_size: 24576,
  num_hidden_layers: 28,
  num_attention_heads: 16,
  num_key_value_heads: 16,
  head_dim: 256,
  hidden_act: "gelu_pytorch_tanh",
  max_position_embeddings: 8192,
  rms_norm_eps: 1e-6,
  tie_word_embeddings: true,
  attention_bias: false,
};

/** Reads a config of Gemma's first version. */
export function readGemmaConfig(values: JsonObject, where: string): LlamaConfig {
  requireNeutral(values, where, ["use_bidirectional_attention"]);
  // Published files say gelu and mean its approximation, as the class knows.
  const hidden_act = values["hidden_act"] === "gelu" ? "gelu_pytorch_tanh" : values["hidden_act"];
  const given = { ...values, ...(hidden_act !== undefined && { hidden_act }) };
  return readLlamaConfig(given, { defaults: DEFAULTS, attentionBias: true }, where);
}

/**
 * Gemma (Gemma Team 2024, arXiv 2403.08295): Llama's block with norms whose weights are stored less one, a gelu in the MLP, and
 * embeddings scaled by the root of the width.
 */
export const gemma: TextFamily<LlamaConfig> = {
  modelType: "gemma",
  readConfig: readGemmaConfig,
  build: (w, c, _json, names) => buildGemma(w, c, names),
};

/** With another mask, the language model of PaliGemma. */
export async function buildGemma(
  w: Weights,
  c: GemmaConfig,
  { prefix = "model.", head = "lm_head" }: DecoderNames = {},
  rule: AttentionRule = causal,
): Promise<Decoder> {
  const ends = await readEnds(w, c, { prefix, head });
  const rope = new RopeTables(w.device, { rotaryDim: c.headDim, ...c.rope });
  const norm = (name: string) => readRmsNorm(w, name, c.width, { eps: c.normEps, offset: 1 });
  const blocks: Block[] = [];
  for (let i = 0; i < c.layers; i++) {
    const layer = `${prefix}layers.${i}.`;
    blocks.push(
      block({
        rule,
        attentionNorm: await norm(`${layer}input_layernorm`),
        attention: await readAttention(w, c, `${layer}self_attn.`, rope),
        mlpNorm: await norm(`${layer}post_attention_layernorm`),
        mlp: await readGatedMlp(w, c, `${layer}mlp.`),
      }),
    );
  }
  return new Decoder(w.device, c, {
    ...ends,
    embeddingScale: Math.sqrt(c.width),
    blocks,
    finalNorm: await norm(`${prefix}norm`),
    ...(c.logitSoftcap && { logitSoftcap: c.logitSoftcap }),
    rope: [rope],
  });
}
