import { type LlamaConfig, readLlamaConfig } from "../../checkpoint/config/decoder-config.ts";
import type { Weights } from "../../checkpoint/weights/weights.ts";
import type { Attention } from "../../layers/attention/attention-layer.ts";
import { block } from "../../layers/block.ts";
import { Decoder, type DecoderParts } from "../../layers/decoder.ts";
import { gatedMlp, type Mlp } from "../../layers/mlp.ts";
import { perHead, readRmsNorm } from "../../layers/norm.ts";
import { RopeTables, type Rotary } from "../../layers/rope/rope-tables.ts";
import { type AttentionRule, causal, slidingWindow } from "../../walk/masks.ts";
import type { Block } from "../../walk/stack.ts";
import type { DecoderNames, TextFamily } from "../family.ts";

/** Values that Hugging Face's LlamaConfig has where a config.json is silent. */
const DEFAULTS = {
  hidden_size: 4096,
  intermediate_size: 11008,
  num_hidden_layers: 32,
  num_attention_heads: 32,
  vocab_size: 32000,
  max_position_embeddings: 2048,
  rms_norm_eps: 1e-6,
  hidden_act: "silu",
  tie_word_embeddings: false,
  attention_bias: false,
  mlp_bias: false,
};

/**
 * Llama (Touvron et al. 2023, arXiv 2302.13971): pre-norm blocks with RMSNorm, RoPE, grouped-query attention and a gated
 * MLP. Vicuna, SmolLM2 and TinyLlama are this.
 */
export const llama: TextFamily<LlamaConfig> = {
  modelType: "llama",
  readConfig: (config, where) =>
    readLlamaConfig(config, { defaults: DEFAULTS, attentionBias: true, mlpBias: true }, where),
  build: buildLlama,
};

interface LlamaOptions {
  readonly rope?: Rotary;
  /** How many layers, from the first, have features of pictures added behind them. */
  readonly pictureLayers?: number;
}

/** Llama, and what differs from it by what its config says. */
export async function buildLlama(
  w: Weights,
  c: LlamaConfig,
  _json: unknown,
  {
    prefix = "model.",
    head = "lm_head",
    rope = new RopeTables(w.device, { rotaryDim: c.headDim, ...c.rope }),
    pictureLayers = 0,
  }: DecoderNames & LlamaOptions = {},
): Promise<Decoder> {
  const ends = await readEnds(w, c, { prefix, head });
  const rules = rulesOf(c);
  const norm = { eps: c.normEps };
  const blocks: Block[] = [];
  for (let i = 0; i < c.layers; i++) {
    const layer = `${prefix}layers.${i}.`;
    blocks.push(
      block({
        rule: rules[i]!,
        takesPictures: i > 0 && i <= pictureLayers,
        attentionNorm: await readRmsNorm(w, `${layer}input_layernorm`, c.width, norm),
        attention: await readAttention(w, c, `${layer}self_attn.`, rope),
        mlpNorm: await readRmsNorm(w, `${layer}post_attention_layernorm`, c.width, norm),
        mlp: await readGatedMlp(w, c, `${layer}mlp.`),
      }),
    );
  }
  const finalNorm = await readRmsNorm(w, `${prefix}norm`, c.width, norm);
  return new Decoder(w.device, c, { ...ends, blocks, finalNorm, rope: [rope] });
}

/** Embedding and unembedding, which may be one. */
export async function readEnds(
  w: Weights,
  { tied, vocab, width }: LlamaConfig,
  { prefix, head }: Required<DecoderNames>,
): Promise<Pick<DecoderParts, "embedding" | "unembedding">> {
  if (tied) return await w.tied(`${prefix}embed_tokens`, head, [vocab, width]);
  return {
    embedding: await w.embedding(`${prefix}embed_tokens`, [vocab, width]),
    unembedding: await w.linear(head, [vocab, width]),
  };
}

/** The mask of each layer. */
export function rulesOf(c: LlamaConfig): AttentionRule[] {
  const windowed = c.window === undefined ? causal : slidingWindow(c.window);
  return Array.from({ length: c.layers }, (_, i) => (isWindowed(c, i) ? windowed : causal));
}

/** Whether a layer has the sliding window. */
export function isWindowed({ window, windowedLayers }: LlamaConfig, layer: number): boolean {
  return window !== undefined && (windowedLayers?.[layer] ?? true);
}

export async function readAttention(
  w: Weights,
  c: LlamaConfig,
  prefix: string,
  rope: Rotary,
): Promise<Attention> {
  const { width, headDim, attentionBias, outputBias } = c;
  const norm = { eps: c.normEps, offset: c.normOffset };
  const [qWidth, kvWidth] = [c.heads * headDim, c.kvHeads * headDim];
  return {
    q: await w.linear(`${prefix}q_proj`, [qWidth, width], attentionBias),
    k: await w.linear(`${prefix}k_proj`, [kvWidth, width], attentionBias),
    v: await w.linear(`${prefix}v_proj`, [kvWidth, width], attentionBias),
    o: await w.linear(`${prefix}o_proj`, [width, qWidth], outputBias),
    headDim,
    rope,
    ...(c.qkNorm && {
      qNorm: perHead(await readRmsNorm(w, `${prefix}q_norm`, headDim, norm), headDim),
      kNorm: perHead(await readRmsNorm(w, `${prefix}k_norm`, headDim, norm), headDim),
    }),
  };
}

export async function readGatedMlp(
  w: Weights,
  { width, mlpWidth, mlpBias, activation }: LlamaConfig,
  prefix: string,
): Promise<Mlp> {
  const weights = {
    gate: await w.linear(`${prefix}gate_proj`, [mlpWidth, width], mlpBias),
    up: await w.linear(`${prefix}up_proj`, [mlpWidth, width], mlpBias),
    down: await w.linear(`${prefix}down_proj`, [width, mlpWidth], mlpBias),
  };
  return gatedMlp(weights, activation);
}
