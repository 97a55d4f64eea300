import { patchRows, placesInBlocks } from "../../../images/patch-rows.ts";
import type { NaflexProcessorSettings } from "../../../images/processors/naflex-processor-config.ts";
import { add } from "../../../kernels/elementwise/elementwise.ts";
import { linear } from "../../../kernels/matmul/linear.ts";
import { concat } from "../../../kernels/movement/concat.ts";
import type { Tensor } from "../../../tensor/tensor.ts";
import { type NaflexConfig, naflexLayout } from "../../checkpoint/config/naflex-config.ts";
import type { Picture } from "../../checkpoint/config/vision-setup.ts";
import type { Weights } from "../../checkpoint/weights/weights.ts";
import { pixelValues } from "../../prompt/prompt-image.ts";
import { full } from "../../walk/masks.ts";
import type { Pass } from "../../walk/pass.ts";
import type { Walk } from "../../walk/site-events.ts";
import { Stack } from "../../walk/stack.ts";
import { type Norm, readLayerNorm } from "../norm.ts";
import { readEncoderBlocks } from "./encoder-blocks.ts";
import { resampled, spread } from "./position-table.ts";

interface NaflexWeights {
  /** [width, size * size * 3], a patch row by row, its three channels together. */
  readonly patchWeight: Tensor;
  /** [width] */
  readonly patchBias: Tensor;
  /** [side * side, width] */
  readonly positions: Tensor;
  readonly stack: Stack;
  readonly postNorm: Norm;
}

/**
 * The vision transformer of SigLIP 2 over pictures of any size (NaFlex, Tschannen et al. 2025, arXiv 2502.14786): a sequence a
 * picture, its patches row by row, with a square table of positions resampled to their grid. There is no padding.
 */
export class NaflexTower {
  readonly config: NaflexConfig;
  readonly processor: NaflexProcessorSettings;
  readonly #w: NaflexWeights;

  constructor(config: NaflexConfig, processor: NaflexProcessorSettings, weights: NaflexWeights) {
    this.config = config;
    this.processor = processor;
    this.#w = weights;
  }

  /** Pictures → [patches of all, width], the output of the last block. */
  *stream(images: readonly Picture[], pass: Pass): Walk<Tensor> {
    const embedded = yield* pass.sites().pass(
      "vision.embed",
      pass.device.scope(() => this.#embed(images, pass)),
    );
    return yield* this.#w.stack.run(embedded, pass);
  }

  postNorm(x: Tensor): Tensor {
    return this.#w.postNorm(x);
  }

  #embed(images: readonly Picture[], pass: Pass): Tensor {
    const { patchWeight, patchBias, positions } = this.#w;
    const { patches: sizes } = this.processor;
    const each = images.map((image) => {
      const grid = naflexLayout(image, this.processor).grid!;
      const values = patchRows(pixelValues(image, this.processor), sizes, placesInBlocks(grid, 1));
      return { values, positions: resampled(positions, grid, spread) };
    });
    const all = new Float32Array(each.reduce((sum, { values }) => sum + values.length, 0));
    let at = 0;
    for (const { values } of each) {
      all.set(values, at);
      at += values.length;
    }
    const width = 3 * sizes.size ** 2;
    const pixels = pass.pixels(pass.device.tensor(all, { shape: [all.length / width, width] }));
    const parts = each.map((one) => one.positions);
    return add(
      linear(pixels, patchWeight, { bias: patchBias }),
      parts.length === 1 ? parts[0]! : concat(parts),
    );
  }
}

/** The tower's weights under `prefix` (`vision_model.`), in Hugging Face's names. */
export async function readNaflexTower(
  w: Weights,
  config: NaflexConfig,
  processor: NaflexProcessorSettings,
  prefix: string,
): Promise<NaflexTower> {
  const { width, patchSize, normEps, positions } = config;
  const embeddings = `${prefix}embeddings.`;
  return new NaflexTower(config, processor, {
    patchWeight: await w.tensor(`${embeddings}patch_embedding.weight`, [width, 3 * patchSize ** 2]),
    patchBias: await w.tensor(`${embeddings}patch_embedding.bias`, [width]),
    positions: await w.tensor(`${embeddings}position_embedding.weight`, [positions, width]),
    stack: new Stack(w.device, await readEncoderBlocks(w, prefix, config, full)),
    postNorm: await readLayerNorm(w, `${prefix}post_layernorm`, width, normEps),
  });
}
