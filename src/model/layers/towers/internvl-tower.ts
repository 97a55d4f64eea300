import { mul } from "../../../kernels/elementwise/elementwise.ts";
import { rowsPerImage, type VisionConfig } from "../../checkpoint/config/vision-config.ts";
import type { Weights } from "../../checkpoint/weights/weights.ts";
import { blocksOf } from "../../walk/masks.ts";
import { type Block, Stack } from "../../walk/stack.ts";
import { block } from "../block.ts";
import { plainMlp } from "../mlp.ts";
import { type Norm, readLayerNorm, readRmsNorm } from "../norm.ts";
import { VisionTower } from "./vision-tower.ts";

/** Of the norms on queries and keys, whatever a config says. */
const QK_EPS = 1e-6;

/** InternViT (Chen et al. 2023, arXiv 2312.14238): a CLIP tower whose halves of blocks are scaled before they are added. */
export interface InternVlTowerConfig extends VisionConfig {
  readonly kind: "internvl";
  /** Which norms the blocks have. */
  readonly norm: "layer_norm" | "rms_norm";
  /** Whether queries and keys are normed, over all heads together. */
  readonly qkNorm: boolean;
  /** Of q, k and v. */
  readonly attentionBias: boolean;
  /** Whether a norm follows the last block. */
  readonly postNorm: boolean;
}

/** The tower's weights under `prefix` (`vision_tower.`), in Hugging Face's names. */
export async function readInternVlTower(
  w: Weights,
  config: InternVlTowerConfig,
  prefix: string,
): Promise<VisionTower> {
  const { width, channels, patchSize, normEps } = config;
  const embeddings = `${prefix}embeddings.`;
  w.skip(`${embeddings}mask_token`); // for training
  const rows = rowsPerImage(config);
  const patches = `${embeddings}patch_embeddings.projection`;
  const patchWeight = await w.tensor(`${patches}.weight`, [width, channels, patchSize, patchSize]);
  const blocks: Block[] = [];
  for (let i = 0; i < config.layers; i++) {
    blocks.push(await readBlock(w, config, `${prefix}encoder.layer.${i}.`));
  }
  return new VisionTower(config, {
    classEmbedding: w.reshape(await w.tensor(`${embeddings}cls_token`, [1, 1, width]), [width]),
    patchWeight: w.reshape(patchWeight, [width, channels * patchSize * patchSize]),
    patchBias: await w.tensor(`${patches}.bias`, [width]),
    positions: w.reshape(await w.tensor(`${embeddings}position_embeddings`, [1, rows, width]), [rows, width]),
    preNorm: undefined,
    stack: new Stack(w.device, blocks),
    postNorm: config.postNorm ? await readLayerNorm(w, `${prefix}layernorm`, width, normEps) : undefined,
  });
}

async function readBlock(w: Weights, config: InternVlTowerConfig, layer: string): Promise<Block> {
  const { width, heads, mlpWidth, normEps, attentionBias, qkNorm } = config;
  const attention = `${layer}attention.`;
  const projection = (name: string) => w.linear(`${attention}${name}`, [width, width], attentionBias);
  const norm = (name: string) =>
    config.norm === "rms_norm"
      ? readRmsNorm(w, `${layer}${name}`, width, { eps: normEps })
      : readLayerNorm(w, `${layer}${name}`, width, normEps);
  const ofAllHeads = (name: string) => readRmsNorm(w, `${attention}${name}`, width, { eps: QK_EPS });
  return block({
    rule: blocksOf(rowsPerImage(config)),
    attentionNorm: await norm("layernorm_before"),
    attention: {
      q: await projection("q_proj"),
      k: await projection("k_proj"),
      v: await projection("v_proj"),
      o: await w.linear(`${attention}projection_layer`, [width, width], true),
      headDim: width / heads,
      ...(qkNorm && { qNorm: await ofAllHeads("q_norm"), kNorm: await ofAllHeads("k_norm") }),
    },
    attentionPostNorm: await readScale(w, `${layer}lambda_1`, width),
    mlpNorm: await norm("layernorm_after"),
    mlp: plainMlp(
      {
        in: await w.linear(`${layer}mlp.fc1`, [mlpWidth, width], true),
        out: await w.linear(`${layer}mlp.fc2`, [width, mlpWidth], true),
      },
      config.activation,
    ),
    mlpPostNorm: await readScale(w, `${layer}lambda_2`, width),
  });
}

/** A factor for each channel, where other blocks may have a norm. */
async function readScale(w: Weights, name: string, width: number): Promise<Norm> {
  const scale = await w.tensor(name, [width]);
  return (x) => mul(x, scale);
}
