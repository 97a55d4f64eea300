import { CheckpointError } from "../../../errors.ts";
import { activationKind } from "../../checkpoint/config/activation-kind.ts";
import { type DecoderConfig, readTaskVectorLayer } from "../../checkpoint/config/decoder-config.ts";
import { requireWholeHeads } from "../../checkpoint/config/encoder-config.ts";
import { requireNeutral } from "../../checkpoint/config/neutral-fields.ts";
import { ConfigReader, type JsonObject } from "../../checkpoint/json/config-reader.ts";
import { findPrefix } from "../../checkpoint/weights/find-prefix.ts";
import type { Weights } from "../../checkpoint/weights/weights.ts";
import { block } from "../../layers/block.ts";
import { Decoder } from "../../layers/decoder.ts";
import { plainMlp } from "../../layers/mlp.ts";
import { readLayerNorm } from "../../layers/norm.ts";
import { causal } from "../../walk/masks.ts";
import type { Block } from "../../walk/stack.ts";
import type { TextFamily } from "../family.ts";

export interface OptConfig extends DecoderConfig {
  /** Of all linear layers of the blocks. */
  readonly bias: boolean;
}

/** Values that Hugging Face's OPTConfig has where a config.json is silent. */
const DEFAULTS = {
  vocab_size: 50272,
  hidden_size: 768,
  num_hidden_layers: 12,
  ffn_dim: 3072,
  max_position_embeddings: 2048,
  do_layer_norm_before: true,
  _remove_final_layer_norm: false,
  num_attention_heads: 12,
  activation_function: "relu",
  enable_bias: true,
  layer_norm_elementwise_affine: true,
  tie_word_embeddings: true,
};

/** PyTorch's default, which the class leaves as it is. */
const NORM_EPS = 1e-5;

/** Rows of the table of positions in front of that of position 0: fairseq's, for padding. */
const FIRST_POSITION = 2;

/** Fields of which only one value is supported. */
const FIXED = {
  do_layer_norm_before: { expected: true, why: "norms behind each sum, as in OPT-350m" },
  _remove_final_layer_norm: { expected: false, why: "no norm behind the last layer" },
  layer_norm_elementwise_affine: { expected: true, why: "norms without weights" },
} as const;

function readConfig(values: JsonObject, where: string): OptConfig {
  requireNeutral(values, where, ["is_causal"]);
  const c = new ConfigReader({ ...DEFAULTS, ...values }, where);
  for (const [field, { expected, why }] of Object.entries(FIXED)) {
    if (c.boolean(field) === expected) continue;
    throw new CheckpointError(
      `${where}: ${field} ${!expected} (${why}) is not supported; expected ${expected}`,
    );
  }
  const width = c.count("hidden_size");
  const heads = c.count("num_attention_heads");
  requireWholeHeads({ width, heads }, where);
  const embedded = c.count("word_embed_proj_dim", width);
  if (embedded !== width) {
    throw new CheckpointError(
      `${where}: word_embed_proj_dim ${embedded} (projections of embeddings, as in OPT-350m) is not supported; ` +
        `expected hidden_size, ${width}`,
    );
  }
  const layers = c.count("num_hidden_layers");
  return {
    layers,
    width,
    heads,
    kvHeads: heads,
    headDim: width / heads,
    mlpWidth: c.count("ffn_dim"),
    vocab: c.count("vocab_size"),
    context: c.count("max_position_embeddings"),
    normEps: NORM_EPS,
    activation: activationKind(c.string("activation_function"), where),
    tied: c.boolean("tie_word_embeddings"),
    bias: c.boolean("enable_bias"),
    ...readTaskVectorLayer(c, layers, where),
  };
}

/** OPT (Zhang et al. 2022, arXiv 2205.01068): LayerNorm, learned positions and a plain MLP with ReLU. */
export const opt: TextFamily<OptConfig> = {
  modelType: "opt",
  names: { alone: "model.decoder.", inside: "decoder." },
  readConfig,
  async build(w, c, _json, { prefix: given, head = "lm_head" } = {}) {
    // Files of the bare OPTModel have no `model.`.
    const prefix = given ?? findPrefix(w, ["model.decoder.", "decoder."], "embed_tokens.weight");
    const shape = [c.vocab, c.width] as const;
    const tied = c.tied ? await w.tied(`${prefix}embed_tokens`, head, shape) : undefined;
    const positions = await w.tensor(`${prefix}embed_positions.weight`, [
      c.context + FIRST_POSITION,
      c.width,
    ]);
    const blocks: Block[] = [];
    for (let i = 0; i < c.layers; i++) blocks.push(await readBlock(w, c, `${prefix}layers.${i}.`));
    return new Decoder(w.device, c, {
      embedding: tied?.embedding ?? (await w.embedding(`${prefix}embed_tokens`, shape)),
      positions: w.rowsFrom(positions, FIRST_POSITION),
      blocks,
      finalNorm: await readLayerNorm(w, `${prefix}final_layer_norm`, c.width, c.normEps),
      unembedding: tied?.unembedding ?? (await w.linear(head, shape)),
    });
  },
};

async function readBlock(w: Weights, c: OptConfig, prefix: string): Promise<Block> {
  const { width, mlpWidth, headDim, normEps, bias } = c;
  const projection = (name: string) => w.linear(`${prefix}self_attn.${name}`, [width, width], bias);
  return block({
    rule: causal,
    attentionNorm: await readLayerNorm(w, `${prefix}self_attn_layer_norm`, width, normEps),
    attention: {
      q: await projection("q_proj"),
      k: await projection("k_proj"),
      v: await projection("v_proj"),
      o: await projection("out_proj"),
      headDim,
    },
    mlpNorm: await readLayerNorm(w, `${prefix}final_layer_norm`, width, normEps),
    mlp: plainMlp(
      {
        in: await w.linear(`${prefix}fc1`, [mlpWidth, width], bias),
        out: await w.linear(`${prefix}fc2`, [width, mlpWidth], bias),
      },
      c.activation,
    ),
  });
}
