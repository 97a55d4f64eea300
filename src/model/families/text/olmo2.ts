import { type LlamaConfig, readLlamaConfig } from "../../checkpoint/config/decoder-config.ts";
import { block } from "../../layers/block.ts";
import { Decoder } from "../../layers/decoder.ts";
import { readRmsNorm } from "../../layers/norm.ts";
import { RopeTables } from "../../layers/rope/rope-tables.ts";
import { causal } from "../../walk/masks.ts";
import type { Block } from "../../walk/stack.ts";
import type { TextFamily } from "../family.ts";
import { readAttention, readEnds, readGatedMlp } from "./llama.ts";

/** Values that Hugging Face's Olmo2Config has where a config.json is silent. */
const DEFAULTS = {
  vocab_size: 50304,
  hidden_size: 4096,
  intermediate_size: 11008,
  num_hidden_layers: 32,
  num_attention_heads: 32,
  hidden_act: "silu",
  max_position_embeddings: 2048,
  rms_norm_eps: 1e-5,
  tie_word_embeddings: false,
  attention_bias: false,
};

/**
 * OLMo 2 (OLMo Team 2025, arXiv 2501.00656): Llama with its norms behind attention and MLP in place of in front of them, and
 * RMSNorm on queries and keys over all heads together.
 */
export const olmo2: TextFamily<LlamaConfig> = {
  modelType: "olmo2",
  readConfig: (values, where) => ({
    ...readLlamaConfig(values, { defaults: DEFAULTS, attentionBias: true }, where),
    qkNorm: true,
  }),
  async build(w, c, _json, { prefix = "model.", head = "lm_head" } = {}) {
    const ends = await readEnds(w, c, { prefix, head });
    const rope = new RopeTables(w.device, { rotaryDim: c.headDim, ...c.rope });
    const norm = (name: string, width = c.width) => readRmsNorm(w, name, width, { eps: c.normEps });
    const blocks: Block[] = [];
    for (let i = 0; i < c.layers; i++) {
      const layer = `${prefix}layers.${i}.`;
      const attention = `${layer}self_attn.`;
      blocks.push(
        block({
          rule: causal,
          attention: {
            ...(await readAttention(w, { ...c, qkNorm: false }, attention, rope)), // its norms are no norms of heads
            qNorm: await norm(`${attention}q_norm`, c.heads * c.headDim),
            kNorm: await norm(`${attention}k_norm`, c.kvHeads * c.headDim),
          },
          attentionPostNorm: await norm(`${layer}post_attention_layernorm`),
          mlp: await readGatedMlp(w, c, `${layer}mlp.`),
          mlpPostNorm: await norm(`${layer}post_feedforward_layernorm`),
        }),
      );
    }
    return new Decoder(w.device, c, {
      ...ends,
      blocks,
      finalNorm: await norm(`${prefix}norm`),
      rope: [rope],
    });
  },
};
