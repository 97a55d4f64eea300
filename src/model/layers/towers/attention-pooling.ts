import { attention } from "../../../kernels/attention/attention.ts";
import { activation } from "../../../kernels/elementwise/activation.ts";
import { linear } from "../../../kernels/matmul/linear.ts";
import { cast, contiguous } from "../../../kernels/movement/copy.ts";
import type { Tensor } from "../../../tensor/tensor.ts";
import type { EncoderConfig } from "../../checkpoint/config/encoder-config.ts";
import type { Linear } from "../../checkpoint/weights/linear-layer.ts";
import type { Weights } from "../../checkpoint/weights/weights.ts";
import type { Pass } from "../../walk/pass.ts";
import { type Norm, readLayerNorm } from "../norm.ts";

interface PoolingWeights {
  /** [1, width], what asks. */
  readonly probe: Tensor;
  /** Queries, keys and values in one: [3 * width, width] and [3 * width]. */
  readonly inWeight: Tensor;
  readonly inBias: Tensor;
  readonly out: Linear;
  readonly norm: Norm;
  readonly fc1: Linear;
  readonly fc2: Linear;
}

/** SigLIP's image pooling: one learned query attends over all patches, then a residual MLP. */
export class AttentionPooling {
  readonly #config: EncoderConfig;
  readonly #w: PoolingWeights;

  constructor(config: EncoderConfig, weights: PoolingWeights) {
    this.#config = config;
    this.#w = weights;
  }

  /** x: [images * patches, width] → [images, width]. */
  pool(x: Tensor, pass: Pass): Tensor {
    const { probe, inWeight, inBias, out, fc1, fc2 } = this.#w;
    const { width, heads, activation: kind } = this.#config;
    const part = (input: Tensor, i: number): Tensor =>
      linear(input, inWeight.rows(i * width, (i + 1) * width), {
        bias: inBias.rows(i * width, (i + 1) * width),
      });
    const images = pass.rows.spans.length;
    const query = part(cast(probe, "f32"), 0).broadcastTo([images, width]);
    const ends = pass.rows.spans.flatMap(({ row, count }) => [0, 0, row, row + count]);
    const segments = x.device.tensor(Uint32Array.from(ends), { shape: [images, 4], dtype: "u32" });
    const headDim = width / heads;
    const z = attention(
      { q: contiguous(query), k: part(x, 1), v: part(x, 2), segments },
      { headDim, scale: headDim ** -0.5 },
    );
    const pooled = out.apply(z);
    const hidden = activation(fc1.apply(this.#w.norm(pooled)), kind);
    return fc2.apply(hidden, { add: pooled });
  }
}

/** The pooling head under `prefix` (`vision_model.head.`). */
export async function readAttentionPooling(
  w: Weights,
  config: EncoderConfig,
  prefix: string,
): Promise<AttentionPooling> {
  const { width, mlpWidth } = config;
  const probe = await w.tensor(`${prefix}probe`, [1, 1, width]);
  return new AttentionPooling(config, {
    probe: w.reshape(probe, [1, width]),
    inWeight: await w.tensor(`${prefix}attention.in_proj_weight`, [3 * width, width]),
    inBias: await w.tensor(`${prefix}attention.in_proj_bias`, [3 * width]),
    out: await w.linear(`${prefix}attention.out_proj`, [width, width], true),
    norm: await readLayerNorm(w, `${prefix}layernorm`, width, config.normEps),
    fc1: await w.linear(`${prefix}mlp.fc1`, [mlpWidth, width], true),
    fc2: await w.linear(`${prefix}mlp.fc2`, [width, mlpWidth], true),
  });
}
