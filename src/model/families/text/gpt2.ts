import { activationKind } from "../../checkpoint/config/activation-kind.ts";
import { type DecoderConfig, readTaskVectorLayer } from "../../checkpoint/config/decoder-config.ts";
import { requireWholeHeads } from "../../checkpoint/config/encoder-config.ts";
import { requireNeutral } from "../../checkpoint/config/neutral-fields.ts";
import { ConfigReader, type JsonObject } from "../../checkpoint/json/config-reader.ts";
import { findPrefix } from "../../checkpoint/weights/find-prefix.ts";
import { thirds } from "../../checkpoint/weights/row-parts.ts";
import type { Weights } from "../../checkpoint/weights/weights.ts";
import { block } from "../../layers/block.ts";
import { Decoder } from "../../layers/decoder.ts";
import { plainMlp } from "../../layers/mlp.ts";
import { readLayerNorm } from "../../layers/norm.ts";
import { causal } from "../../walk/masks.ts";
import type { Block } from "../../walk/stack.ts";
import type { TextFamily } from "../family.ts";

interface Gpt2Config extends DecoderConfig {
  /** Of the scores, by layer. */
  readonly scales: readonly number[];
}

/** Values that Hugging Face's GPT2Config has where a config.json is silent. */
const DEFAULTS = {
  n_embd: 768,
  n_layer: 12,
  n_head: 12,
  n_positions: 1024,
  vocab_size: 50257,
  activation_function: "gelu_new",
  layer_norm_epsilon: 1e-5,
  scale_attn_weights: true,
  scale_attn_by_inverse_layer_idx: false,
  tie_word_embeddings: true,
};

/** Names by which the class takes the same fields; where a config has both, these count. */
const ALIASES: Readonly<Record<string, string>> = {
  n_embd: "hidden_size",
  n_positions: "max_position_embeddings",
  n_head: "num_attention_heads",
  n_layer: "num_hidden_layers",
};

function readConfig(values: JsonObject, where: string): Gpt2Config {
  requireNeutral(values, where, ["is_causal", "add_cross_attention"]);
  const c = new ConfigReader({ ...DEFAULTS, ...values }, where);
  const nameOf = (field: string) => (ALIASES[field]! in values ? ALIASES[field]! : field);
  const width = c.count(nameOf("n_embd"));
  const heads = c.count(nameOf("n_head"));
  const layers = c.count(nameOf("n_layer"));
  requireWholeHeads({ width, heads }, where, [nameOf("n_embd"), nameOf("n_head")]);
  const headDim = width / heads;
  const scale = c.boolean("scale_attn_weights") ? headDim ** -0.5 : 1;
  const byLayer = c.boolean("scale_attn_by_inverse_layer_idx");
  return {
    layers,
    width,
    heads,
    kvHeads: heads,
    headDim,
    mlpWidth: c.count("n_inner", 4 * width),
    vocab: c.count("vocab_size"),
    context: c.count(nameOf("n_positions")),
    normEps: c.number("layer_norm_epsilon"),
    activation: activationKind(c.string("activation_function"), where),
    tied: c.boolean("tie_word_embeddings"),
    scales: Array.from({ length: layers }, (_, layer) => (byLayer ? scale / (layer + 1) : scale)),
    ...readTaskVectorLayer(c, layers, where),
  };
}

/** GPT-2 (Radford et al. 2019): LayerNorm, learned positions, a plain MLP, and one product for q, k and v. */
export const gpt2: TextFamily<Gpt2Config> = {
  modelType: "gpt2",
  names: { alone: "transformer.", embedding: "wte" },
  readConfig,
  async build(w, c, _json, { prefix: given, head = "lm_head" } = {}) {
    // The first published files have no prefix.
    const prefix = given ?? findPrefix(w, ["transformer.", ""], "wte.weight");
    const tied = c.tied ? await w.tied(`${prefix}wte`, head, [c.vocab, c.width]) : undefined;
    const blocks: Block[] = [];
    for (let i = 0; i < c.layers; i++) blocks.push(await readBlock(w, c, `${prefix}h.${i}.`, c.scales[i]!));
    return new Decoder(w.device, c, {
      embedding: tied?.embedding ?? (await w.embedding(`${prefix}wte`, [c.vocab, c.width])),
      positions: await w.tensor(`${prefix}wpe.weight`, [c.context, c.width]),
      blocks,
      finalNorm: await readLayerNorm(w, `${prefix}ln_f`, c.width, c.normEps),
      unembedding: tied?.unembedding ?? (await w.linear(head, [c.vocab, c.width])),
    });
  },
};

async function readBlock(w: Weights, c: Gpt2Config, prefix: string, scale: number): Promise<Block> {
  const { width, mlpWidth, headDim, normEps } = c;
  w.skip(`${prefix}attn.bias`); // the causal mask, as a buffer
  // GPT-2's Conv1D stores [in, out].
  const layer = { bias: true, transposed: true };
  const [q, k, v] = await w.fused(`${prefix}attn.c_attn`, [3 * width, width], thirds(width), layer);
  return block({
    rule: causal,
    attentionNorm: await readLayerNorm(w, `${prefix}ln_1`, width, normEps),
    attention: { q, k, v, o: await w.linear(`${prefix}attn.c_proj`, [width, width], layer), headDim, scale },
    mlpNorm: await readLayerNorm(w, `${prefix}ln_2`, width, normEps),
    mlp: plainMlp(
      {
        in: await w.linear(`${prefix}mlp.c_fc`, [mlpWidth, width], layer),
        out: await w.linear(`${prefix}mlp.c_proj`, [width, mlpWidth], layer),
      },
      c.activation,
    ),
  });
}
