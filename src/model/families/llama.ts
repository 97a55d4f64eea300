import { gatherRows } from "../../kernels/movement/gather.ts";
import { rmsNorm } from "../../kernels/reduction/rms-norm.ts";
import type { Device } from "../../tensor/device.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { type DecoderConfig, readDecoderConfig } from "../checkpoint/config/decoder-config.ts";
import type { Linear } from "../checkpoint/weights/linear.ts";
import type { Weights } from "../checkpoint/weights/weights.ts";
import { type AttentionWeights, attend } from "../layers/attention-layer.ts";
import { type GatedMlpWeights, gatedMlpHidden } from "../layers/gated-mlp.ts";
import { addOutput } from "../layers/residual.ts";
import { RopeTables } from "../layers/rope-tables.ts";
import type { Prompt } from "../prompt/prompt.ts";
import type { Network } from "../walk/network.ts";
import { type AttentionRule, causal, type Pass, slidingWindow } from "../walk/pass.ts";
import type { Sites, Walk } from "../walk/sites.ts";
import { scoped } from "../walk/walk.ts";
import type { Family } from "./family.ts";

interface LlamaLayer {
  readonly inputNorm: Tensor;
  readonly attention: AttentionWeights;
  readonly postNorm: Tensor;
  readonly mlp: GatedMlpWeights;
}

interface LlamaWeights {
  /** [vocab, width] */
  readonly embedding: Tensor;
  readonly layers: readonly LlamaLayer[];
  readonly finalNorm: Tensor;
  readonly unembedding: Linear;
}

/**
 * Llama (Touvron et al. 2023, arXiv 2302.13971): pre-norm blocks with RMSNorm, RoPE, grouped-query attention and a gated
 * MLP. Vicuna, SmolLM2 and TinyLlama are this; Mistral adds a sliding window.
 */
export class LlamaNetwork implements Network {
  readonly device: Device;
  readonly config: DecoderConfig;
  readonly #w: LlamaWeights;
  readonly #rope: RopeTables;
  readonly #rule: AttentionRule;

  constructor(device: Device, config: DecoderConfig, weights: LlamaWeights) {
    this.device = device;
    this.config = config;
    this.#w = weights;
    this.#rope = new RopeTables(device, { rotaryDim: config.headDim, ...config.rope });
    this.#rule = config.window === undefined ? causal : slidingWindow(config.window);
  }

  attention(): AttentionRule {
    return this.#rule;
  }

  *embed(prompts: readonly Prompt[], pass: Pass): Walk<Tensor> {
    const ids = this.device.tensor(Uint32Array.from(prompts.flatMap((p) => p.ids)), { dtype: "u32" });
    return yield* this.embedTokens(ids, pass.sites());
  }

  *embedTokens(ids: Tensor, at: Sites): Walk<Tensor> {
    return yield* at.pass("embed", this.tokenEmbeddings(ids));
  }

  /** Rows of the embedding for ids u32 [rows]: [rows, width]. */
  tokenEmbeddings(ids: Tensor): Tensor {
    return gatherRows(this.#w.embedding, ids);
  }

  layer(index: number, x: Tensor, pass: Pass): Walk<Tensor> {
    return scoped(this.device, () => this.#layer(index, x, pass));
  }

  *#layer(index: number, input: Tensor, pass: Pass): Walk<Tensor> {
    const { inputNorm, attention, postNorm, mlp } = this.#w.layers[index]!;
    const { headDim, normEps: eps, activation } = this.config;
    const shape = { headDim, scale: headDim ** -0.5, ropeTable: this.#rope.upTo(pass.extent) };
    const at = pass.sites(index);

    const x = yield* at.pass("resid_pre", input); // [rows, width]
    const normed = yield* at.pass("attn_in", rmsNorm(x, inputNorm, { eps }));
    const z = yield* attend(attention, normed, shape, index, this.#rule, pass);
    const mid = yield* at.pass("resid_mid", yield* addOutput(x, z, attention.o, "attn_out", at));
    const midNormed = yield* at.pass("mlp_in", rmsNorm(mid, postNorm, { eps }));
    const hidden = yield* gatedMlpHidden(mlp, midNormed, activation, at); // [rows, mlpWidth]
    return yield* at.pass("resid_post", yield* addOutput(mid, hidden, mlp.down, "mlp_out", at));
  }

  *head(x: Tensor, at: Sites): Walk<Tensor> {
    const normed = yield* at.pass("final_norm", rmsNorm(x, this.#w.finalNorm, { eps: this.config.normEps }));
    return yield* at.pass("logits", this.#w.unembedding.apply(normed)); // [rows, vocab]
  }

  dispose(): void {
    this.#rope.dispose();
  }
}

/** The weights of a Llama decoder whose tensors' names start with `prefix` (`model.`); `head` names the unembedding. */
export async function readLlamaWeights(
  w: Weights,
  c: DecoderConfig,
  { prefix = "model.", head = "lm_head" } = {},
): Promise<LlamaWeights> {
  const layers: LlamaLayer[] = [];
  const tied = c.tied ? await w.tied(`${prefix}embed_tokens`, head, [c.vocab, c.width]) : undefined;
  const embedding = tied?.embedding ?? (await w.tensor(`${prefix}embed_tokens.weight`, [c.vocab, c.width]));
  for (let i = 0; i < c.layers; i++) layers.push(await readLayer(w, c, `${prefix}layers.${i}.`));
  return {
    embedding,
    layers,
    finalNorm: await w.tensor(`${prefix}norm.weight`, [c.width]),
    unembedding: tied?.unembedding ?? (await w.linear(head, [c.vocab, c.width])),
  };
}

async function readLayer(w: Weights, c: DecoderConfig, prefix: string): Promise<LlamaLayer> {
  const { width, mlpWidth, attentionBias, mlpBias } = c;
  const attention = `${prefix}self_attn.`;
  const mlp = `${prefix}mlp.`;
  const qWidth = c.heads * c.headDim;
  const kvWidth = c.kvHeads * c.headDim;
  return {
    inputNorm: await w.tensor(`${prefix}input_layernorm.weight`, [width]),
    attention: {
      q: await w.linear(`${attention}q_proj`, [qWidth, width], attentionBias),
      k: await w.linear(`${attention}k_proj`, [kvWidth, width], attentionBias),
      v: await w.linear(`${attention}v_proj`, [kvWidth, width], attentionBias),
      o: await w.linear(`${attention}o_proj`, [width, qWidth], attentionBias),
    },
    postNorm: await w.tensor(`${prefix}post_attention_layernorm.weight`, [width]),
    mlp: {
      gate: await w.linear(`${mlp}gate_proj`, [mlpWidth, width], mlpBias),
      up: await w.linear(`${mlp}up_proj`, [mlpWidth, width], mlpBias),
      down: await w.linear(`${mlp}down_proj`, [width, mlpWidth], mlpBias),
    },
  };
}

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

export const llama: Family = {
  modelType: "llama",
  readConfig: (config, where) => readDecoderConfig(config, { defaults: DEFAULTS, biases: true }, where),
  async build(w, config) {
    return new LlamaNetwork(w.device, config, await readLlamaWeights(w, config));
  },
};
