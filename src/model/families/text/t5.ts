import { CheckpointError } from "../../../errors.ts";
import { activationKind } from "../../checkpoint/config/activation-kind.ts";
import {
  type DecoderConfig,
  type EncoderSetup,
  readTaskVectorLayer,
} from "../../checkpoint/config/decoder-config.ts";
import { requireNeutral } from "../../checkpoint/config/neutral-fields.ts";
import { ConfigReader, type JsonObject } from "../../checkpoint/json/config-reader.ts";
import type { Weights } from "../../checkpoint/weights/weights.ts";
import type { Attention } from "../../layers/attention/attention-layer.ts";
import { RelativeBias } from "../../layers/attention/relative-bias.ts";
import { block } from "../../layers/block.ts";
import { EncoderDecoder, type EncoderParts } from "../../layers/encoder-decoder.ts";
import { gatedMlp, type Mlp, plainMlp } from "../../layers/mlp.ts";
import { readRmsNorm } from "../../layers/norm.ts";
import { causal, full } from "../../walk/masks.ts";
import type { Block } from "../../walk/stack.ts";
import type { Family } from "../family.ts";

export interface T5Config extends DecoderConfig {
  readonly encoder: EncoderSetup;
  readonly buckets: number;
  readonly maxDistance: number;
  readonly gated: boolean;
  /** Whether the decoder's output is scaled before the unembedding. */
  readonly scaledHead: boolean;
}

/** Values that Hugging Face's T5Config has where a config.json is silent. */
const DEFAULTS = {
  vocab_size: 32128,
  d_model: 512,
  d_kv: 64,
  d_ff: 2048,
  num_layers: 6,
  num_heads: 8,
  relative_attention_num_buckets: 32,
  relative_attention_max_distance: 128,
  layer_norm_epsilon: 1e-6,
  feed_forward_proj: "relu",
};

/** Names by which the class takes the same fields; they win. */
const ALIASES = {
  hidden_size: "d_model",
  num_attention_heads: "num_heads",
  num_hidden_layers: "num_layers",
  head_dim: "d_kv",
};

function readConfig(values: JsonObject, where: string): T5Config {
  requireNeutral(values, where, ["is_causal", "is_encoder_decoder"]);
  const given = { ...DEFAULTS, ...values };
  const aliased = Object.entries(ALIASES).flatMap(([alias, name]) =>
    alias in values ? [[name, values[alias]]] : [],
  );
  const c = new ConfigReader({ ...given, ...Object.fromEntries(aliased) }, where);
  const heads = c.count("num_heads");
  const sizes = {
    width: c.count("d_model"),
    heads,
    kvHeads: heads,
    headDim: c.count("d_kv"),
    mlpWidth: c.count("d_ff"),
  };
  // The class takes the decoder's default from the field itself, whatever its alias says.
  const layers = c.count("num_decoder_layers", new ConfigReader(given, where).count("num_layers"));
  const tied = c.boolean("tie_word_embeddings", true);
  return {
    ...sizes,
    layers,
    vocab: c.count("vocab_size"),
    context: Number.POSITIVE_INFINITY,
    normEps: c.number("layer_norm_epsilon"),
    ...readMlp(c, where),
    ...readBuckets(c, where),
    tied, // says how logits are scaled; whether there are two matrices is for the file to say
    scaledHead: c.boolean("scale_decoder_outputs", tied),
    encoder: {
      ...sizes,
      layers: c.count("num_layers"),
      startId: c.count("decoder_start_token_id", undefined, 0),
    },
    cross: {
      reads: "sources",
      layers: Array.from({ length: layers }, (_, layer) => layer),
      heads,
      kvHeads: heads,
      headDim: sizes.headDim,
      qkNorm: false,
    },
    ...readTaskVectorLayer(c, layers, where),
  };
}

/** `feed_forward_proj` is an activation, or `gated-` and one; two derived fields that the file may have win over it. */
function readMlp(c: ConfigReader, where: string): Pick<T5Config, "activation" | "gated"> {
  const projection = c.string("feed_forward_proj");
  const [, gated, name] = /^(gated-)?([^-]+)$/.exec(projection) ?? [];
  if (name === undefined) {
    throw new CheckpointError(
      `${where}: expected feed_forward_proj to be an activation, or "gated-" and one, found ${JSON.stringify(projection)}`,
    );
  }
  const derived = projection === "gated-gelu" ? "gelu_new" : name;
  return {
    activation: activationKind(c.string("dense_act_fn", derived), where),
    gated: c.boolean("is_gated_act", gated !== undefined),
  };
}

function readBuckets(c: ConfigReader, where: string): Pick<T5Config, "buckets" | "maxDistance"> {
  const buckets = c.count("relative_attention_num_buckets", undefined, 4);
  const maxDistance = c.count("relative_attention_max_distance");
  if (maxDistance > Math.floor(buckets / 2)) return { buckets, maxDistance };
  throw new CheckpointError(
    `${where}: expected relative_attention_max_distance to be above half of the ${buckets} buckets ` +
      `(relative_attention_num_buckets), found ${maxDistance}`,
  );
}

/**
 * T5 (Raffel et al. 2020, arXiv 1910.10683), with relu or a gated MLP (1.1, Flan-T5): an encoder and a decoder of pre-norm
 * blocks with RMSNorm, unscaled scores with a bias by distance, and cross-attention in every block of the decoder.
 */
export const t5: Family<T5Config> = { modelType: "t5", readConfig, build: (w, c) => buildT5(w, c) };

/** `prefix`: in front of all names, where it is a part of a larger model; `pictures`: of what its encoder reads. */
export async function buildT5(
  w: Weights,
  c: T5Config,
  { prefix = "", pictures }: { prefix?: string; pictures?: EncoderParts["pictures"] } = {},
): Promise<EncoderDecoder> {
  const shape = [c.vocab, c.width] as const;
  const { embedding, unembedding } = await w.tied(`${prefix}shared`, `${prefix}lm_head`, shape);
  // transformers ties these as well, unless the file has others.
  const own = async (stack: string) =>
    w.has(`${prefix}${stack}.embed_tokens.weight`)
      ? await w.embedding(`${prefix}${stack}.embed_tokens`, shape)
      : embedding;
  // The first published files have it; no class reads it.
  w.skip(`${prefix}decoder.block.0.layer.1.EncDecAttention.relative_attention_bias`);
  const encoder = await readStack(w, c, `${prefix}encoder`, {
    bidirectional: true,
    layers: c.encoder.layers,
  });
  const decoder = await readStack(w, c, `${prefix}decoder`, { bidirectional: false, layers: c.layers });
  return new EncoderDecoder(w.device, c, {
    encoder: {
      embedding: await own("encoder"),
      blocks: encoder.blocks,
      finalNorm: encoder.finalNorm,
      ...(pictures && { pictures }),
    },
    decoder: {
      embedding: await own("decoder"),
      blocks: decoder.blocks,
      finalNorm: decoder.finalNorm,
      unembedding,
      ...(c.scaledHead && { headScale: c.width ** -0.5 }),
    },
    biases: [encoder.bias, decoder.bias],
  });
}

async function readStack(
  w: Weights,
  c: T5Config,
  stack: string,
  { bidirectional, layers }: { bidirectional: boolean; layers: number },
) {
  const { heads, buckets, maxDistance } = c;
  const weight = await w.tensor(`${stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight`, [
    buckets,
    heads,
  ]);
  const bias = new RelativeBias(w.device, weight, { buckets, maxDistance, bidirectional });
  const norm = (name: string) => readRmsNorm(w, name, c.width, { eps: c.normEps });
  const blocks: Block[] = [];
  for (let i = 0; i < layers; i++) {
    const layer = `${stack}.block.${i}.layer.`;
    const mlpAt = bidirectional ? 1 : 2;
    blocks.push(
      block({
        rule: bidirectional ? full : causal,
        attentionNorm: await norm(`${layer}0.layer_norm`),
        attention: { ...(await readAttention(w, c, `${layer}0.SelfAttention.`)), bias },
        ...(!bidirectional && {
          crossAttention: {
            norm: await norm(`${layer}1.layer_norm`),
            attention: await readAttention(w, c, `${layer}1.EncDecAttention.`),
            rule: full,
          },
        }),
        mlpNorm: await norm(`${layer}${mlpAt}.layer_norm`),
        mlp: await readMlpWeights(w, c, `${layer}${mlpAt}.DenseReluDense.`),
      }),
    );
  }
  return { blocks, bias, finalNorm: await norm(`${stack}.final_layer_norm`) };
}

async function readAttention(w: Weights, c: T5Config, prefix: string): Promise<Attention> {
  const inner = c.heads * c.headDim;
  return {
    q: await w.linear(`${prefix}q`, [inner, c.width]),
    k: await w.linear(`${prefix}k`, [inner, c.width]),
    v: await w.linear(`${prefix}v`, [inner, c.width]),
    o: await w.linear(`${prefix}o`, [c.width, inner]),
    headDim: c.headDim,
    scale: 1,
  };
}

async function readMlpWeights(w: Weights, c: T5Config, prefix: string): Promise<Mlp> {
  const into = (name: string) => w.linear(`${prefix}${name}`, [c.mlpWidth, c.width]);
  const out = await w.linear(`${prefix}wo`, [c.width, c.mlpWidth]);
  if (!c.gated) return plainMlp({ in: await into("wi"), out }, c.activation);
  return gatedMlp({ gate: await into("wi_0"), up: await into("wi_1"), down: out }, c.activation);
}
