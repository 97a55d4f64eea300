import { activationKind } from "../../checkpoint/config/activation-kind.ts";
import { requireWholeHeads } from "../../checkpoint/config/encoder-config.ts";
import { requireNeutral } from "../../checkpoint/config/neutral-fields.ts";
import { rowsPerImage, type VisionConfig } from "../../checkpoint/config/vision-config.ts";
import { ConfigReader, type JsonObject } from "../../checkpoint/json/config-reader.ts";
import { thirds } from "../../checkpoint/weights/row-parts.ts";
import type { Weights } from "../../checkpoint/weights/weights.ts";
import { blocksOf } from "../../walk/masks.ts";
import { type Block, Stack } from "../../walk/stack.ts";
import { block } from "../block.ts";
import { plainMlp } from "../mlp.ts";
import { readLayerNorm } from "../norm.ts";
import { VisionTower } from "./vision-tower.ts";

/** The tower of BLIP-2 and InstructBLIP. */
export interface BlipTowerConfig extends VisionConfig {
  readonly kind: "blip";
  /** Of queries, keys and values. */
  readonly qkvBias: boolean;
}

/** Where a vision_config is silent: Hugging Face's Blip2VisionConfig, EVA-CLIP's ViT-g/14. */
const DEFAULTS = {
  hidden_size: 1408,
  intermediate_size: 6144,
  num_hidden_layers: 39,
  num_attention_heads: 16,
  image_size: 224,
  patch_size: 14,
  hidden_act: "gelu",
  layer_norm_eps: 1e-6,
  qkv_bias: true,
};

export function readBlipTowerConfig(values: JsonObject, where: string): BlipTowerConfig {
  requireNeutral(values, where);
  const c = new ConfigReader({ ...DEFAULTS, ...values }, where);
  const config: BlipTowerConfig = {
    kind: "blip",
    layers: c.count("num_hidden_layers"),
    width: c.count("hidden_size"),
    heads: c.count("num_attention_heads"),
    mlpWidth: c.count("intermediate_size"),
    normEps: c.number("layer_norm_eps"),
    activation: activationKind(c.string("hidden_act"), where),
    imageSize: c.count("image_size"),
    patchSize: c.count("patch_size"),
    channels: 3,
    qkvBias: c.boolean("qkv_bias"),
  };
  requireWholeHeads(config, where);
  return config;
}

/** The tower's weights under `prefix` (`vision_model.`), in Hugging Face's names. */
export async function readBlipTower(
  w: Weights,
  config: BlipTowerConfig,
  prefix: string,
): Promise<VisionTower> {
  const { width, channels, patchSize, normEps } = config;
  const rows = rowsPerImage(config);
  const patch = `${prefix}embeddings.patch_embedding`;
  const patchWeight = await w.tensor(`${patch}.weight`, [width, channels, patchSize, patchSize]);
  const classEmbedding = await w.tensor(`${prefix}embeddings.class_embedding`, [1, 1, width]);
  const positions = await w.tensor(`${prefix}embeddings.position_embedding`, [1, rows, width]);
  const blocks: Block[] = [];
  for (let i = 0; i < config.layers; i++) {
    blocks.push(await readBlock(w, config, `${prefix}encoder.layers.${i}.`));
  }
  return new VisionTower(config, {
    classEmbedding: w.reshape(classEmbedding, [width]),
    patchWeight: w.reshape(patchWeight, [width, channels * patchSize * patchSize]),
    patchBias: await w.tensor(`${patch}.bias`, [width]),
    positions: w.reshape(positions, [rows, width]),
    preNorm: undefined,
    stack: new Stack(w.device, blocks),
    postNorm: await readLayerNorm(w, `${prefix}post_layernorm`, width, normEps),
  });
}

async function readBlock(w: Weights, config: BlipTowerConfig, prefix: string): Promise<Block> {
  const { width, heads, mlpWidth, normEps, activation, qkvBias } = config;
  const [q, k, v] = await w.fused(`${prefix}self_attn.qkv`, [3 * width, width], thirds(width), {
    bias: qkvBias,
  });
  const o = await w.linear(`${prefix}self_attn.projection`, [width, width], true);
  return block({
    rule: blocksOf(rowsPerImage(config)),
    attentionNorm: await readLayerNorm(w, `${prefix}layer_norm1`, width, normEps),
    attention: { q, k, v, o, headDim: width / heads },
    mlpNorm: await readLayerNorm(w, `${prefix}layer_norm2`, width, normEps),
    mlp: plainMlp(
      {
        in: await w.linear(`${prefix}mlp.fc1`, [mlpWidth, width], true),
        out: await w.linear(`${prefix}mlp.fc2`, [width, mlpWidth], true),
      },
      activation,
    ),
  });
}
