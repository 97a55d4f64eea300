import { CheckpointError } from "../../../errors.ts";
import { activationKind } from "../../checkpoint/config/activation-kind.ts";
import { type DecoderConfig, readTaskVectorLayer } from "../../checkpoint/config/decoder-config.ts";
import { requireWholeHeads } from "../../checkpoint/config/encoder-config.ts";
import { requireNeutral } from "../../checkpoint/config/neutral-fields.ts";
import { neoxRopeParameters, type RopeConfig, readRope } from "../../checkpoint/config/rope-config.ts";
import { ConfigReader, type JsonObject } from "../../checkpoint/json/config-reader.ts";
import { findPrefix } from "../../checkpoint/weights/find-prefix.ts";
import { thirdsOfHeads } from "../../checkpoint/weights/row-parts.ts";
import type { Weights } from "../../checkpoint/weights/weights.ts";
import { block } from "../../layers/block.ts";
import { Decoder } from "../../layers/decoder.ts";
import { plainMlp } from "../../layers/mlp.ts";
import { readLayerNorm } from "../../layers/norm.ts";
import { RopeTables } from "../../layers/rope/rope-tables.ts";
import { causal } from "../../walk/masks.ts";
import type { Block } from "../../walk/stack.ts";
import type { TextFamily } from "../family.ts";

interface GptNeoxConfig extends DecoderConfig {
  readonly rope: RopeConfig;
  readonly parallel: boolean;
  readonly attentionBias: boolean;
}

/** Values that Hugging Face's GPTNeoXConfig has where a config.json is silent. */
const DEFAULTS = {
  vocab_size: 50432,
  hidden_size: 6144,
  num_hidden_layers: 44,
  num_attention_heads: 64,
  intermediate_size: 24576,
  hidden_act: "gelu",
  max_position_embeddings: 2048,
  layer_norm_eps: 1e-5,
  tie_word_embeddings: false,
  use_parallel_residual: true,
  attention_bias: true,
};

function readConfig(values: JsonObject, where: string): GptNeoxConfig {
  requireNeutral(values, where, ["is_causal"]);
  const c = new ConfigReader({ ...DEFAULTS, ...values }, where);
  const width = c.count("hidden_size");
  const heads = c.count("num_attention_heads");
  const layers = c.count("num_hidden_layers");
  const context = c.count("max_position_embeddings");
  const parallel = c.boolean("use_parallel_residual");
  requireWholeHeads({ width, heads }, where);
  const headDim = width / heads;
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
    parallel,
    attentionBias: c.boolean("attention_bias"),
    ...readTaskVectorLayer(c, layers, where),
  };
}

/**
 * RoPE on the first dimensions of each head. The class takes the share of `head_dim`, where a config has that, though it
 * changes nothing else.
 */
function readPartialRope(
  values: JsonObject,
  { headDim, context }: Pick<DecoderConfig, "headDim" | "context">,
  where: string,
): RopeConfig {
  const c = new ConfigReader(values, where);
  const name = ["rope_scaling", "rope_parameters"].find((key) => Object.keys(c.object(key)).length > 0);
  const { partial_rotary_factor: share, ...parameters } = neoxRopeParameters(values);
  // Said here, where the name that it has in the config is known.
  if (!("rope_theta" in c.object(name ?? "rope_parameters"))) c.positive("rotary_emb_base", 10000);
  const rope = readRope({ [name ?? "rope_parameters"]: parameters }, context, where);
  const rotaryDim = typeof share === "number" ? Math.trunc(c.count("head_dim", headDim) * share) : Number.NaN;
  if (rotaryDim >= 2 && rotaryDim <= headDim && rotaryDim % 2 === 0) return { ...rope, rotaryDim };
  throw new CheckpointError(
    `${where}: expected rotary_pct (partial_rotary_factor) to make an even number of 2 to ${headDim} of the dimensions of a ` +
      `head (hidden_size over num_attention_heads), found ${JSON.stringify(share)}`,
  );
}

/**
 * GPT-NeoX (Black et al. 2022, arXiv 2204.06745), which Pythia is: attention and MLP beside each other, RoPE on part of
 * each head, one product for q, k and v.
 */
export const gptNeox: TextFamily<GptNeoxConfig> = {
  modelType: "gpt_neox",
  names: { alone: "gpt_neox.", embedding: "embed_in" },
  readConfig,
  async build(w, c, _json, { prefix = "gpt_neox.", head: given } = {}) {
    // As published, and as saved by transformers 5.
    const head = given ?? findPrefix(w, ["embed_out", "lm_head"], ".weight");
    const tied = c.tied ? await w.tied(`${prefix}embed_in`, head, [c.vocab, c.width]) : undefined;
    const rope = new RopeTables(w.device, { rotaryDim: c.headDim, ...c.rope });
    const blocks: Block[] = [];
    for (let i = 0; i < c.layers; i++) blocks.push(await readBlock(w, c, `${prefix}layers.${i}.`, rope));
    return new Decoder(w.device, c, {
      embedding: tied?.embedding ?? (await w.embedding(`${prefix}embed_in`, [c.vocab, c.width])),
      blocks,
      finalNorm: await readLayerNorm(w, `${prefix}final_layer_norm`, c.width, c.normEps),
      unembedding: tied?.unembedding ?? (await w.linear(head, [c.vocab, c.width])),
      rope: [rope],
    });
  },
};

async function readBlock(w: Weights, c: GptNeoxConfig, prefix: string, rope: RopeTables): Promise<Block> {
  const { width, mlpWidth, heads, headDim, normEps, attentionBias: bias } = c;
  const attention = `${prefix}attention.`;
  w.skip(`${attention}bias`); // the causal mask, as a buffer
  const [q, k, v] = await w.fused(
    `${attention}query_key_value`,
    [3 * width, width],
    thirdsOfHeads(heads, headDim),
    { bias },
  );
  return block({
    rule: causal,
    parallel: c.parallel,
    attentionNorm: await readLayerNorm(w, `${prefix}input_layernorm`, width, normEps),
    attention: { q, k, v, o: await w.linear(`${attention}dense`, [width, width], { bias }), headDim, rope },
    mlpNorm: await readLayerNorm(w, `${prefix}post_attention_layernorm`, width, normEps),
    mlp: plainMlp(
      {
        in: await w.linear(`${prefix}mlp.dense_h_to_4h`, [mlpWidth, width], { bias: true }),
        out: await w.linear(`${prefix}mlp.dense_4h_to_h`, [width, mlpWidth], { bias: true }),
      },
      c.activation,
    ),
  });
}
