import { CheckpointError } from "../../../errors.ts";
import { activationKind } from "../../checkpoint/config/activation-kind.ts";
import { type DecoderConfig, readTaskVectorLayer } from "../../checkpoint/config/decoder-config.ts";
import { requireWholeHeads } from "../../checkpoint/config/encoder-config.ts";
import { requireNeutral } from "../../checkpoint/config/neutral-fields.ts";
import { rotaryDimOf } from "../../checkpoint/config/partial-rope.ts";
import { type RopeConfig, readRope, ropeParameters } from "../../checkpoint/config/rope-config.ts";
import { ConfigReader, type JsonObject } from "../../checkpoint/json/config-reader.ts";
import { thirdsOfHeads } from "../../checkpoint/weights/row-parts.ts";
import type { Weights } from "../../checkpoint/weights/weights.ts";
import { block } from "../../layers/block.ts";
import { Decoder } from "../../layers/decoder.ts";
import { plainMlp } from "../../layers/mlp.ts";
import { perHead, readLayerNorm } from "../../layers/norm.ts";
import { RopeTables } from "../../layers/rope/rope-tables.ts";
import { causal } from "../../walk/masks.ts";
import type { Block } from "../../walk/stack.ts";
import type { TextFamily } from "../family.ts";

export interface PersimmonConfig extends DecoderConfig {
  readonly rope: RopeConfig & { readonly rotaryDim: number };
}

/** Values that Hugging Face's PersimmonConfig has where a config.json is silent. */
const DEFAULTS = {
  vocab_size: 262144,
  hidden_size: 4096,
  intermediate_size: 16384,
  num_hidden_layers: 36,
  num_attention_heads: 64,
  hidden_act: "relu2",
  max_position_embeddings: 16384,
  layer_norm_eps: 1e-5,
  tie_word_embeddings: false,
  qk_layernorm: true,
};

export function readPersimmonConfig(values: JsonObject, where: string): PersimmonConfig {
  requireNeutral(values, where, ["is_causal"]);
  const c = new ConfigReader({ ...DEFAULTS, ...values }, where);
  const [width, heads] = [c.count("hidden_size"), c.count("num_attention_heads")];
  const layers = c.count("num_hidden_layers");
  const context = c.count("max_position_embeddings");
  requireWholeHeads({ width, heads }, where);
  const headDim = width / heads;
  // The class counts the turned dimensions of this one, and fails where it is another than the one that it uses.
  if (c.count("head_dim", headDim) !== headDim) {
    throw new CheckpointError(
      `${where}: expected head_dim to be hidden_size over num_attention_heads, ${headDim}, found ${c.value("head_dim")}`,
    );
  }
  return {
    layers,
    width,
    heads,
    kvHeads: heads,
    headDim,
    mlpWidth: c.count("intermediate_size"),
    vocab: c.count("vocab_size"),
    context,
    normEps: c.number("layer_norm_eps"),
    activation: activationKind(c.string("hidden_act"), where),
    rope: readPartialRope(values, { headDim, context }, where),
    tied: c.boolean("tie_word_embeddings"),
    qkNorm: c.boolean("qk_layernorm"),
    ...readTaskVectorLayer(c, layers, where),
  };
}

/** RoPE on the first dimensions of each head, half of them unless the config says it. */
function readPartialRope(
  values: JsonObject,
  { headDim, context }: Pick<DecoderConfig, "headDim" | "context">,
  where: string,
): PersimmonConfig["rope"] {
  const { partial_rotary_factor: own, ...parameters } = ropeParameters(values);
  const share = new ConfigReader({ partial_rotary_factor: 0.5, ...values }, where);
  for (const key of ["rope_scaling", "rope_parameters"]) share.object(key);
  const rope = readRope({ rope_parameters: parameters }, context, where);
  const factor = own === undefined ? share.number("partial_rotary_factor") : Number(own);
  return { ...rope, rotaryDim: rotaryDimOf(headDim, factor, where) };
}

/**
 * Persimmon (Elsen et al. 2023, adept.ai/blog/persimmon-8b): GPT-NeoX's sequential block with a squared ReLU and LayerNorm on the
 * queries and keys of each head.
 */
export const persimmon: TextFamily<PersimmonConfig> = {
  modelType: "persimmon",
  readConfig: readPersimmonConfig,
  async build(w, c, _json, { prefix = "model.", head = "lm_head" } = {}) {
    const tied = c.tied ? await w.tied(`${prefix}embed_tokens`, head, [c.vocab, c.width]) : undefined;
    const rope = new RopeTables(w.device, c.rope);
    const blocks: Block[] = [];
    for (let i = 0; i < c.layers; i++) blocks.push(await readBlock(w, c, `${prefix}layers.${i}.`, rope));
    return new Decoder(w.device, c, {
      embedding: tied?.embedding ?? (await w.embedding(`${prefix}embed_tokens`, [c.vocab, c.width])),
      blocks,
      finalNorm: await readLayerNorm(w, `${prefix}final_layernorm`, c.width, c.normEps),
      unembedding: tied?.unembedding ?? (await w.linear(head, [c.vocab, c.width])),
      rope: [rope],
    });
  },
};

async function readBlock(w: Weights, c: PersimmonConfig, prefix: string, rope: RopeTables): Promise<Block> {
  const { width, mlpWidth, heads, headDim, normEps } = c;
  const attention = `${prefix}self_attn.`;
  const [q, k, v] = await w.fused(
    `${attention}query_key_value`,
    [3 * width, width],
    thirdsOfHeads(heads, headDim),
    { bias: true },
  );
  const ofHeads = async (name: string) =>
    perHead(await readLayerNorm(w, `${attention}${name}`, headDim, normEps), headDim);
  return block({
    rule: causal,
    attentionNorm: await readLayerNorm(w, `${prefix}input_layernorm`, width, normEps),
    attention: {
      ...{ q, k, v },
      o: await w.linear(`${attention}dense`, [width, width], true),
      headDim,
      rope,
      ...(c.qkNorm && { qNorm: await ofHeads("q_layernorm"), kNorm: await ofHeads("k_layernorm") }),
    },
    mlpNorm: await readLayerNorm(w, `${prefix}post_attention_layernorm`, width, normEps),
    mlp: plainMlp(
      {
        in: await w.linear(`${prefix}mlp.dense_h_to_4h`, [mlpWidth, width], true),
        out: await w.linear(`${prefix}mlp.dense_4h_to_h`, [width, mlpWidth], true),
      },
      c.activation,
    ),
  });
}
