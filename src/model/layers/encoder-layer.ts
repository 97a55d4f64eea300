import { activation } from "../../kernels/elementwise/activation.ts";
import { layerNorm } from "../../kernels/reduction/layer-norm.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { EncoderConfig } from "../checkpoint/config/encoder-config.ts";
import type { Linear } from "../checkpoint/weights/linear.ts";
import type { Weights } from "../checkpoint/weights/weights.ts";
import type { AttentionRule, Pass } from "../walk/pass.ts";
import type { Walk } from "../walk/sites.ts";
import { scoped } from "../walk/walk.ts";
import { type AttentionWeights, attend } from "./attention-layer.ts";
import { addOutput } from "./residual.ts";

/** Scale and shift of a LayerNorm. */
export interface NormWeights {
  readonly weight: Tensor;
  readonly bias: Tensor;
}

export interface EncoderLayer {
  readonly norm1: NormWeights;
  readonly attention: AttentionWeights;
  readonly norm2: NormWeights;
  readonly fc1: Linear;
  readonly fc2: Linear;
}

/**
 * The pre-norm transformer block that both towers of CLIP and SigLIP are made of: biases everywhere, a plain MLP, no
 * RoPE. x: [rows, width] → [rows, width]. Its sites are those of a decoder block.
 */
export function encoderLayer(
  w: EncoderLayer,
  x: Tensor,
  config: EncoderConfig,
  index: number,
  rule: AttentionRule,
  pass: Pass,
): Walk<Tensor> {
  return scoped(pass.device, () => block(w, x, config, index, rule, pass));
}

function* block(
  w: EncoderLayer,
  input: Tensor,
  config: EncoderConfig,
  index: number,
  rule: AttentionRule,
  pass: Pass,
): Walk<Tensor> {
  const at = pass.sites(index);
  const headDim = config.width / config.heads;
  const shape = { headDim, scale: headDim ** -0.5, ropeTable: undefined };

  const x = yield* at.pass("resid_pre", input);
  const normed = yield* at.pass("attn_in", norm(x, w.norm1, config));
  const z = yield* attend(w.attention, normed, shape, index, rule, pass);
  const mid = yield* at.pass("resid_mid", yield* addOutput(x, z, w.attention.o, "attn_out", at));
  const midNormed = yield* at.pass("mlp_in", norm(mid, w.norm2, config));
  const hidden = yield* at.pass("mlp_pre", w.fc1.apply(midNormed)); // [rows, mlpWidth]
  const active = yield* at.pass("mlp_act", activation(hidden, config.activation));
  return yield* at.pass("resid_post", yield* addOutput(mid, active, w.fc2, "mlp_out", at));
}

export function norm(x: Tensor, { weight, bias }: NormWeights, { normEps }: { normEps: number }): Tensor {
  return layerNorm(x, weight, bias, { eps: normEps });
}

export async function readNorm(w: Weights, name: string, width: number): Promise<NormWeights> {
  return { weight: await w.tensor(`${name}.weight`, [width]), bias: await w.tensor(`${name}.bias`, [width]) };
}

/** The blocks under `<prefix>encoder.layers.`, in Hugging Face's names. */
export async function readEncoderLayers(
  w: Weights,
  prefix: string,
  { layers, width, mlpWidth }: EncoderConfig,
): Promise<EncoderLayer[]> {
  const read: EncoderLayer[] = [];
  for (let i = 0; i < layers; i++) {
    const layer = `${prefix}encoder.layers.${i}.`;
    const projection = (name: string) => w.linear(`${layer}self_attn.${name}`, [width, width], true);
    read.push({
      norm1: await readNorm(w, `${layer}layer_norm1`, width),
      attention: {
        q: await projection("q_proj"),
        k: await projection("k_proj"),
        v: await projection("v_proj"),
        o: await projection("out_proj"),
      },
      norm2: await readNorm(w, `${layer}layer_norm2`, width),
      fc1: await w.linear(`${layer}mlp.fc1`, [mlpWidth, width], true),
      fc2: await w.linear(`${layer}mlp.fc2`, [width, mlpWidth], true),
    });
  }
  return read;
}
