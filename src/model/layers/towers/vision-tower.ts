import { add } from "../../../kernels/elementwise/elementwise.ts";
import { patchEmbedding } from "../../../kernels/matmul/patch-embedding.ts";
import { concat } from "../../../kernels/movement/concat.ts";
import { cast } from "../../../kernels/movement/copy.ts";
import type { Tensor } from "../../../tensor/tensor.ts";
import { patchesPerSide, rowsPerImage, type VisionConfig } from "../../checkpoint/config/vision-config.ts";
import type { Weights } from "../../checkpoint/weights/weights.ts";
import { takeRows } from "../../walk/forward.ts";
import { blocksOf } from "../../walk/masks.ts";
import type { Pass } from "../../walk/pass.ts";
import type { Walk } from "../../walk/site-events.ts";
import { ALL_LAYER_SITES, type SiteName } from "../../walk/sites.ts";
import { Stack } from "../../walk/stack.ts";
import { giveBack } from "../../walk/walk.ts";
import { type Norm, readLayerNorm } from "../norm.ts";
import { readEncoderBlocks } from "./encoder-blocks.ts";
import { fractionalPlaces } from "./fractional-places.ts";

export interface VisionTowerWeights {
  /** Where there is one (CLIP, InternVL, BLIP-2): [width] */
  readonly classEmbedding: Tensor | undefined;
  /** [width, channels * patch * patch] */
  readonly patchWeight: Tensor;
  /** Where there is one (SigLIP, InternVL, BLIP-2): [width] */
  readonly patchBias: Tensor | undefined;
  /** [rowsPerImage, width] */
  readonly positions: Tensor;
  /** CLIP only: the norm after the embeddings. */
  readonly preNorm: Norm | undefined;
  readonly stack: Stack;
  /** Absent in towers that end with their last block. */
  readonly postNorm: Norm | undefined;
}

/**
 * The vision transformers of CLIP (Radford et al. 2021, arXiv 2103.00020), SigLIP (Zhai et al. 2023, arXiv 2303.15343),
 * InternVL (Chen et al. 2023, arXiv 2312.14238) and BLIP-2 (EVA's): patches, learned positions, pre-norm blocks with full attention.
 */
export class VisionTower {
  readonly config: VisionConfig;
  readonly #w: VisionTowerWeights;

  constructor(config: VisionConfig, weights: VisionTowerWeights) {
    this.config = config;
    this.#w = weights;
  }

  /**
   * pixels [images or tiles, 3, size, size] → [images or tiles * rowsPerImage, width]: the output of block `upTo` - 1, which
   * is the stream that enters block `upTo`. Each tile sees only itself. Later blocks run only if one of their sites is in use.
   */
  *stream(pixels: Tensor, pass: Pass, upTo = this.config.layers): Walk<Tensor> {
    const at = pass.sites();
    const embedded = yield* at.pass(
      "vision.embed",
      pixels.device.scope(() => this.#embed(pixels)),
    );
    const x = this.#w.preNorm?.(embedded) ?? embedded;
    giveBack(embedded, x);
    let wanted: Tensor | undefined;
    yield* this.#w.stack.run(x, pass, {
      blocks: Math.max(upTo, blocksInUse(pass, this.config.layers)),
      onStream(index, x) {
        if (index === upTo) wanted = x.alias();
      },
    });
    return wanted!;
  }

  /** The norm after the last block: [rows, width] → [rows, width]. CLIP applies it to the class token only. */
  postNorm(x: Tensor): Tensor {
    return this.#w.postNorm!(x);
  }

  #embed(pixels: Tensor): Tensor {
    const { classEmbedding, patchWeight, patchBias, positions } = this.#w;
    const { patchSize, width } = this.config;
    const images = pixels.dim(0);
    const patches = patchEmbedding(pixels, patchWeight, patchSize, { bias: patchBias });
    let rows = patches.reshape([images, patches.dim(0) / images, width]);
    if (classEmbedding) rows = concat([cast(classEmbedding, "f32").broadcastTo([images, 1, width]), rows], 1);
    return add(rows, this.#placed(positions)).reshape([images * positions.dim(0), width]);
  }

  /** Of the learned positions, those that the patches take. */
  #placed(positions: Tensor): Tensor {
    if (!this.config.fractionalPlaces) return positions;
    return takeRows(positions, squarePlaces(patchesPerSide(this.config)));
  }
}

/** Blocks of a tower up to and with the last one of which a site is in use. */
export function blocksInUse(pass: Pass, layers: number): number {
  let blocks = layers;
  while (
    blocks > 0 &&
    !ALL_LAYER_SITES.some((site) => pass.inUse(`vision.${site}.${blocks - 1}` satisfies SiteName))
  ) {
    blocks--;
  }
  return blocks;
}

/** The learned positions of a square's patches, row by row, where they go by fractions. */
export function squarePlaces(side: number): number[] {
  const places = fractionalPlaces(side, side);
  return places.flatMap((row) => places.map((column) => row * side + column));
}

/** The tower's weights under `prefix` (`vision_tower.vision_model.`), in Hugging Face's names. */
export async function readVisionTower(
  w: Weights,
  config: VisionConfig,
  prefix: string,
): Promise<VisionTower> {
  const { kind, width, channels, patchSize, normEps } = config;
  const clip = kind === "clip";
  const embeddings = `${prefix}embeddings.`;
  const patchWeight = await w.tensor(`${embeddings}patch_embedding.weight`, [
    width,
    channels,
    patchSize,
    patchSize,
  ]);
  return new VisionTower(config, {
    classEmbedding: clip ? await w.tensor(`${embeddings}class_embedding`, [width]) : undefined,
    patchWeight: w.reshape(patchWeight, [width, channels * patchSize * patchSize]),
    patchBias: clip ? undefined : await w.tensor(`${embeddings}patch_embedding.bias`, [width]),
    positions: await w.tensor(`${embeddings}position_embedding.weight`, [rowsPerImage(config), width]),
    // "layrnorm" is how the checkpoints spell it.
    preNorm: clip ? await readLayerNorm(w, `${prefix}pre_layrnorm`, width, normEps) : undefined,
    stack: new Stack(w.device, await readEncoderBlocks(w, prefix, config, blocksOf(rowsPerImage(config)))),
    postNorm: await readLayerNorm(w, `${prefix}post_layernorm`, width, normEps),
  });
}
