import { layerNorm } from "../../kernels/reduction/layer-norm.ts";
import { rmsNorm } from "../../kernels/reduction/rms-norm.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { Weights } from "../checkpoint/weights/weights.ts";

/** Normalises rows: [..., width] → f32 [..., width]. */
export interface Norm {
  (x: Tensor): Tensor;
  /** What it does to a row once the row's scale is known, for those that read it from outside. */
  readonly linear?: NormLinear;
}

/** A norm as (x − mean) · scale · (weight + offset) + bias; an RMSNorm takes no mean. */
export interface NormLinear {
  /** [width] */
  readonly weight: Tensor;
  /** Default 0. */
  readonly offset?: number | undefined;
  /** [width] */
  readonly bias?: Tensor;
  readonly eps: number;
  /** Whether the mean of the row is taken away. */
  readonly centred: boolean;
}

export interface RmsNormSettings {
  readonly eps: number;
  /** Added to the weight; Gemma stores its weights less one. */
  readonly offset?: number | undefined;
}

/** RMSNorm with the weight `<name>.weight` [width]. */
export async function readRmsNorm(
  w: Weights,
  name: string,
  width: number,
  settings: RmsNormSettings,
): Promise<Norm> {
  const weight = await w.tensor(`${name}.weight`, [width]);
  const norm = (x: Tensor) => rmsNorm(x, weight, settings);
  return Object.assign(norm, { linear: { weight, ...settings, centred: false } });
}

/** LayerNorm with `<name>.weight` and `<name>.bias`, each [width]. */
export async function readLayerNorm(w: Weights, name: string, width: number, eps: number): Promise<Norm> {
  const weight = await w.tensor(`${name}.weight`, [width]);
  const bias = await w.tensor(`${name}.bias`, [width]);
  const norm = (x: Tensor) => layerNorm(x, weight, bias, { eps });
  return Object.assign(norm, { linear: { weight, bias, eps, centred: true } });
}

/** A norm over each head by itself: [rows, heads * headDim] → the same, with a norm of width headDim. */
export function perHead(norm: Norm, headDim: number): Norm {
  return (x) => {
    const [rows, width] = x.shape as [number, number];
    return norm(x.reshape([(rows * width) / headDim, headDim])).reshape([rows, width]);
  };
}
