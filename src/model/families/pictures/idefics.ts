import { CheckpointError } from "../../../errors.ts";
import { readProcessorConfig } from "../../../images/processors/processor-config.ts";
import { Matrix } from "../../../kernels/matmul/matrix.ts";
import { concat } from "../../../kernels/movement/concat.ts";
import {
  type GatedCrossConfig,
  type LlamaConfig,
  readLlamaConfig,
} from "../../checkpoint/config/decoder-config.ts";
import { requireWholeHeads } from "../../checkpoint/config/encoder-config.ts";
import {
  readVisionConfig,
  rowsPerImage,
  type SquareVisionSetup,
  type VisionConfig,
} from "../../checkpoint/config/vision-config.ts";
import type { ResamplerConfig } from "../../checkpoint/config/vision-setup.ts";
import { ConfigReader, type JsonObject } from "../../checkpoint/json/config-reader.ts";
import type { Weights } from "../../checkpoint/weights/weights.ts";
import type { CrossParts } from "../../layers/attention/cross-attention.ts";
import { block } from "../../layers/block.ts";
import { type Resampler, readResampler } from "../../layers/bridges/resampler.ts";
import { CrossDecoder } from "../../layers/cross-decoder.ts";
import { Decoder, type DecoderParts } from "../../layers/decoder.ts";
import { perHead, readRmsNorm } from "../../layers/norm.ts";
import { RopeTables } from "../../layers/rope/rope-tables.ts";
import { uploadImages } from "../../layers/towers/upload-images.ts";
import { readVisionTower, type VisionTower } from "../../layers/towers/vision-tower.ts";
import type { PromptImage } from "../../prompt/prompt-image.ts";
import { passOverImages } from "../../walk/input-passes.ts";
import type { Context } from "../../walk/key-value-store.ts";
import { type AttentionRule, causal } from "../../walk/masks.ts";
import type { Pass } from "../../walk/pass.ts";
import { RowMap } from "../../walk/row-map.ts";
import type { Walk } from "../../walk/site-events.ts";
import type { Block } from "../../walk/stack.ts";
import type { Family, FamilyFiles } from "../family.ts";
import { readAttention, readGatedMlp } from "../text/llama.ts";
import { IMAGE_TOKEN, ideficsImageRules, latestImage } from "./parts/idefics-images.ts";

interface IdeficsConfig extends LlamaConfig {
  /** Of the ids, the last ones, which have a table of their own. */
  readonly additionalVocab: number;
  readonly cross: GatedCrossConfig;
  readonly vision: SquareVisionSetup & { readonly resampler: ResamplerConfig };
  readonly eosId: number | undefined;
}

/** Values that Hugging Face's IdeficsConfig has where a config.json is silent. */
const DEFAULTS = {
  vocab_size: 32000,
  additional_vocab_size: 0,
  hidden_size: 4096,
  intermediate_size: 11008,
  num_hidden_layers: 32,
  num_attention_heads: 32,
  hidden_act: "silu",
  max_position_embeddings: 2048,
  rms_norm_eps: 1e-6,
  tie_word_embeddings: false,
  alpha_type: "float",
  cross_layer_interval: 1,
  qk_layer_norms: false,
  use_resampler: false,
};
const VISION_DEFAULTS = {
  embed_dim: 768,
  image_size: 224,
  intermediate_size: 5120,
  patch_size: 14,
  num_hidden_layers: 32,
  num_attention_heads: 16,
  num_channels: 3,
  hidden_act: "gelu",
  layer_norm_eps: 1e-5,
};
const PERCEIVER_DEFAULTS = {
  resampler_n_latents: 64,
  resampler_depth: 6,
  resampler_n_heads: 16,
  resampler_head_dim: 96,
  qk_layer_norms_perceiver: false,
};

function readConfig(values: JsonObject, where: string, files: FamilyFiles): IdeficsConfig {
  const c = new ConfigReader({ ...DEFAULTS, ...values }, where);
  requireIs(c, where, "tie_word_embeddings", false);
  requireIs(c, where, "use_resampler", true);
  // The class has all heads alike, each of its share of the width.
  const own = { ...values, num_key_value_heads: null, head_dim: null };
  const decoder = readLlamaConfig(own, { defaults: DEFAULTS }, where);
  const { layers, width, heads, mlpWidth } = decoder;
  requireWholeHeads({ width, heads }, where);
  const headDim = width / heads;
  if (c.has("head_dim") && c.count("head_dim") !== headDim) {
    throw new CheckpointError(
      `${where}: expected head_dim to be hidden_size / num_attention_heads, ${headDim}, found ${c.value("head_dim")}`,
    );
  }
  const interval = c.count("cross_layer_interval");
  if (layers % interval !== 0) {
    throw new CheckpointError(
      `${where}: expected num_hidden_layers to be a multiple of cross_layer_interval (${interval}), found ${layers}`,
    );
  }
  const alpha = c.string("alpha_type");
  if (alpha !== "float" && alpha !== "vector") {
    throw new CheckpointError(
      `${where}: expected alpha_type "float" or "vector", found ${JSON.stringify(alpha)}`,
    );
  }
  const additionalVocab = c.count("additional_vocab_size", undefined, 0);
  return {
    ...decoder,
    vocab: decoder.vocab + additionalVocab,
    additionalVocab,
    cross: {
      layers: Array.from({ length: layers / interval }, (_, i) => i * interval),
      heads,
      kvHeads: heads,
      headDim,
      mlpWidth,
      qkNorm: c.boolean("qk_layer_norms"),
      gateWidth: alpha === "vector" ? width : 1,
    },
    vision: readSetup(c, where, files),
    eosId: files.eosId,
  };
}

function requireIs(c: ConfigReader, where: string, field: string, expected: boolean): void {
  if (c.boolean(field) === expected) return;
  throw new CheckpointError(`${where}: ${field} ${!expected} is not supported; expected ${expected}`);
}

function readSetup(
  c: ConfigReader,
  where: string,
  { preprocessor, idOf }: FamilyFiles,
): IdeficsConfig["vision"] {
  const tower = readTower(c.object("vision_config"), `${where}: vision_config`);
  const p = new ConfigReader(
    { ...PERCEIVER_DEFAULTS, ...c.object("perceiver_config") },
    `${where}: perceiver_config`,
  );
  const resampler: ResamplerConfig = {
    layers: p.count("resampler_depth"),
    latents: p.count("resampler_n_latents"),
    width: tower.width,
    heads: p.count("resampler_n_heads"),
    kvHeads: p.count("resampler_n_heads"),
    headDim: p.count("resampler_head_dim"),
    mlpWidth: 4 * tower.width,
    qkNorm: p.boolean("qk_layer_norms_perceiver"),
  };
  const imageTokenId = idOf(IMAGE_TOKEN);
  if (imageTokenId === undefined) {
    throw new CheckpointError(`${where}: the tokenizer beside it has no token ${IMAGE_TOKEN}`);
  }
  if (preprocessor === undefined) {
    throw new CheckpointError(`${where}: there is no preprocessor_config.json beside it`);
  }
  const fixed = { towerRows: rowsPerImage(tower), tokens: 1, latents: resampler.latents };
  return {
    tower,
    imageTokenId,
    imageToken: IMAGE_TOKEN,
    featureLayer: tower.layers,
    keepsClassToken: true,
    resampler,
    embeds: false,
    fixed,
    layout: () => fixed,
    processor: readProcessorConfig(preprocessor),
  };
}

/** The tower is CLIP's under another name, and with a width (embed_dim) under another. */
function readTower(values: JsonObject, where: string): VisionConfig {
  const width = values["embed_dim"] ?? values["hidden_size"] ?? VISION_DEFAULTS.embed_dim;
  if ((values["hidden_size"] ?? width) !== width) {
    throw new CheckpointError(
      `${where}: hidden_size ${values["hidden_size"]} is not supported beside an embed_dim of ${width}; expected the same`,
    );
  }
  const given = { ...VISION_DEFAULTS, ...values, hidden_size: width, model_type: "clip_vision_model" };
  const heads = new ConfigReader(given, where).count("num_attention_heads");
  if (typeof width === "number")
    requireWholeHeads({ width, heads }, where, ["embed_dim", "num_attention_heads"]);
  return readVisionConfig(given, where);
}

/** What cross-attention reads: what the resampler makes of the tower's rows, prompt by prompt. */
function* contextOf(
  images: readonly PromptImage[],
  pass: Pass,
  vision: IdeficsConfig["vision"],
  { tower, resampler }: { tower: VisionTower; resampler: Resampler },
): Walk<Context> {
  const pixels = pass.pixels(uploadImages(pass.device, images, vision.tower, vision.processor));
  const stream = yield* tower.stream(
    pixels,
    passOverImages(pass, () => vision.fixed!.towerRows),
  );
  const { latents } = vision.resampler;
  const x = yield* resampler.run(stream, pass, vision);
  const counts = pass.rows.spans.map(({ sequence }) => pass.prompt(sequence)!.images.length * latents);
  const rows = RowMap.packed(counts).spans.map((span, i) => ({
    ...span,
    sequence: pass.rows.spans[i]!.sequence,
  }));
  return {
    x,
    rows: new RowMap(rows.filter(({ count }) => count > 0)),
    named: passOverImages(pass, () => latents).rows,
  };
}

/**
 * Idefics (Laurençon et al. 2023, arXiv 2306.16527), an open Flamingo: gated cross-attention in front of some layers of a Llama
 * reads what a resampler makes of a CLIP tower's rows.
 */
export const idefics: Family<IdeficsConfig> = {
  modelType: "idefics",
  readConfig,
  imageRules: () => ideficsImageRules,
  async build(w, c) {
    const rope = new RopeTables(w.device, { rotaryDim: c.headDim, ...c.rope });
    const { imageTokenId, resampler } = c.vision;
    const rule = latestImage(imageTokenId, c.eosId, resampler.latents);
    const norm = { eps: c.normEps };
    const blocks: Block[] = [];
    for (let i = 0; i < c.layers; i++) {
      const layer = `model.layers.${i}.`;
      const number = c.cross.layers.indexOf(i);
      blocks.push(
        block({
          rule: causal,
          ...(number >= 0 && { cross: await readCross(w, c, number, rule) }),
          attentionNorm: await readRmsNorm(w, `${layer}input_layernorm`, c.width, norm),
          attention: await readAttention(w, c, `${layer}self_attn.`, rope),
          mlpNorm: await readRmsNorm(w, `${layer}post_attention_layernorm`, c.width, norm),
          mlp: await readGatedMlp(w, c, `${layer}mlp.`),
        }),
      );
    }
    const finalNorm = await readRmsNorm(w, "model.norm", c.width, norm);
    const decoder = new Decoder(w.device, c, { ...(await readEnds(w, c)), blocks, finalNorm, rope: [rope] });
    const tower = await readVisionTower(w, c.vision.tower, "model.vision_model.");
    const parts = { tower, resampler: await readResampler(w, c.vision, "model.perceiver_resampler.") };
    return new CrossDecoder(decoder, (images, pass) => contextOf(images, pass, c.vision, parts));
  },
};

/** The gated block of this number. */
async function readCross(
  w: Weights,
  c: IdeficsConfig,
  number: number,
  rule: AttentionRule,
): Promise<CrossParts> {
  const prefix = `model.gated_cross_attn_layers.${number}.`;
  const attention = `${prefix}cross_attn.`;
  const { width, headDim } = c;
  const { gateWidth, qkNorm } = c.cross;
  const norm = { eps: c.normEps };
  const source = c.vision.tower.width;
  const ofHeads = async (name: string) =>
    perHead(await readRmsNorm(w, `${attention}${name}`, headDim, norm), headDim);
  const alpha = async (name: string) =>
    w.reshape(await w.tensor(`${prefix}${name}`, gateWidth === 1 ? [1] : [1, 1, gateWidth]), [1, gateWidth]);
  return {
    rule,
    attentionNorm: await readRmsNorm(w, `${prefix}input_layernorm`, width, norm),
    attention: {
      q: await w.linear(`${attention}q_proj`, [width, width]),
      k: await w.linear(`${attention}k_proj`, [width, source]),
      v: await w.linear(`${attention}v_proj`, [width, source]),
      o: await w.linear(`${attention}o_proj`, [width, width]),
      headDim,
      ...(qkNorm && { qNorm: await ofHeads("q_layer_norm"), kNorm: await ofHeads("k_layer_norm") }),
    },
    attentionAlpha: await alpha("alpha_cross_attn"),
    mlpNorm: await readRmsNorm(w, `${prefix}post_attention_layernorm`, width, norm),
    mlp: await readGatedMlp(w, c, `${prefix}mlp.`),
    mlpAlpha: await alpha("alpha_dense"),
  };
}

/** Embedding and unembedding, each with the additional tokens behind the others. */
async function readEnds(
  w: Weights,
  { vocab, width, additionalVocab }: IdeficsConfig,
): Promise<Pick<DecoderParts, "embedding" | "unembedding">> {
  const base = vocab - additionalVocab;
  const tables = [
    { name: "model.embed_tokens.weight", rows: base },
    { name: "model.embed_tokens.additional_embedding.weight", rows: additionalVocab },
  ].filter(({ rows }) => rows > 0);
  const heads = [await w.linear("lm_head", [base, width])];
  if (additionalVocab > 0) heads.push(await w.linear("lm_head.additional_fc", [additionalVocab, width]));
  return {
    embedding: new Matrix(await w.stacked(tables, width)),
    unembedding: {
      apply: (x) =>
        concat(
          heads.map((head) => head.apply(x)),
          1,
        ),
    },
  };
}
