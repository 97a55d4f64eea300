import { aKindOf, checkArgument, checkOptions } from "../../arguments.ts";
import { ArgumentError, ShapeError, SiteError } from "../../errors.ts";
import { activation } from "../../kernels/elementwise/activation.ts";
import { greater, select } from "../../kernels/elementwise/compare.ts";
import { add, div, exp, mul, sqrt, sub, tanh } from "../../kernels/elementwise/elementwise.ts";
import { linear } from "../../kernels/matmul/linear.ts";
import { matmul } from "../../kernels/matmul/matmul.ts";
import { gatherRows } from "../../kernels/movement/gather.ts";
import { scatterAdd } from "../../kernels/movement/scatter-add.ts";
import { mean, norm, variance } from "../../kernels/reduction/reduce.ts";
import { topK } from "../../kernels/reduction/top-k.ts";
import type { ModelOutline } from "../../model/language-model.ts";
import { siteInfo } from "../../model/walk/site-info.ts";
import type { SiteName } from "../../model/walk/sites.ts";
import { aModelOutline } from "../../patching/arguments.ts";
import type { Device } from "../../tensor/device.ts";
import type { Scope } from "../../tensor/scope.ts";
import { showShape } from "../../tensor/shape.ts";
import { Tensor } from "../../tensor/tensor.ts";
import type { SaeConfig } from "./sae-config.ts";

/** The weights, by SAELens' names for them. */
export interface SaeWeights {
  /** [width, latents] */
  readonly W_enc: Tensor;
  /** [latents, width] */
  readonly W_dec: Tensor;
  /** [width] */
  readonly b_dec: Tensor;
  /** [latents]; of gated ones the next three stand in its place. */
  readonly b_enc?: Tensor | undefined;
  readonly b_gate?: Tensor | undefined;
  readonly b_mag?: Tensor | undefined;
  readonly r_mag?: Tensor | undefined;
  /** Of jumprelu: [latents] */
  readonly threshold?: Tensor | undefined;
  /** [latents] */
  readonly finetuning_scaling_factor?: Tensor | undefined;
}

const aTensor = aKindOf(Tensor, "from a tap, or device.tensor(…)");

/** The epsilon that SAELens adds to a standard deviation. */
const LAYER_NORM_EPSILON = 1e-5;

/**
 * A sparse autoencoder (Bricken et al. 2023; Cunningham et al. 2023, arXiv 2309.08600): an activation as the sum of some of many
 * directions, each with a *latent* that says how much of it there is. The arithmetic is that of SAELens, version by version.
 * {@link loadSparseAutoencoder} makes one.
 *
 * `encode`, `decode` and `reconstruct` record operations on the device and wait for nothing; what they make passes to the caller's
 * scope, and gradients go through them.
 */
export class SparseAutoencoder {
  /** The folder, URL or hub id that it came from. */
  readonly name: string;
  readonly config: SaeConfig;
  /** Whether each activation loses its mean first, as those of TransformerLens' centred weights have. */
  readonly centred: boolean;
  readonly weights: SaeWeights;
  /** log10 of how often each latent is active, from the folder's sparsity.safetensors; undefined where there is none. */
  readonly logSparsity: Float32Array | undefined;
  readonly #memory: Scope | undefined;
  /** W_dec's norms [latents], where latents are given in their units. */
  readonly #decoderNorms: Tensor | undefined;

  constructor(
    parts: Pick<SparseAutoencoder, "name" | "config" | "centred" | "weights"> & {
      readonly logSparsity?: Float32Array | undefined;
      /** Holds the weights. */
      readonly memory?: Scope;
    },
  ) {
    this.name = parts.name;
    this.config = parts.config;
    this.centred = parts.centred;
    this.weights = parts.weights;
    this.logSparsity = parts.logSparsity;
    this.#memory = parts.memory;
    if (parts.config.rescaleByDecoderNorm) {
      const make = () => norm(parts.weights.W_dec, 1);
      this.#decoderNorms = parts.memory ? parts.memory.enter(make) : make();
    }
  }

  /** The device that its weights are on. */
  get device(): Device {
    return this.weights.W_dec.device;
  }

  /** The activation that it is of. */
  get site(): SiteName {
    return this.config.site;
  }

  /** Number of latents. */
  get latents(): number {
    return this.config.latents;
  }

  /** Throws SiteError for a model whose site is of another width, or that lacks it. */
  check(model: ModelOutline): void {
    checkArgument("check", "model", model, aModelOutline);
    const { site, width } = this.config;
    const { features } = siteInfo(model.sites, site);
    if (features === width) return;
    throw new SiteError(
      `${this.name}: expected a model whose ${site} is ${width} wide (d_in), found ${features} in ${model.name}`,
    );
  }

  /** Activations x [rows, width] → latents f32 [rows, latents]. */
  encode(x: Tensor): Tensor {
    this.#checkRows("encode", x, this.config.width);
    return x.device.scope(() => this.#encode(x));
  }

  /** Some latents of activations: x [rows, width] → f32 [rows, ids.length]. What the others would cost is saved where it can be. */
  encodeSome(x: Tensor, ids: readonly number[]): Tensor {
    this.#checkRows("encodeSome", x, this.config.width);
    checkLatents("encodeSome", ids, this);
    return x.device.scope(() => {
      const columns = x.device.tensor(Uint32Array.from(ids), { dtype: "u32" });
      if (this.config.architecture !== "topk") return this.#encode(x, columns);
      return gatherRows(this.#encode(x).transpose(), columns).transpose();
    });
  }

  /**
   * Latents [rows, latents] → activations f32 [rows, width]. Where activations are normalised by what they are themselves (layer_norm,
   * constant_norm_rescale), `of` is needed: those that the latents are of, [rows, width]. Of a centred autoencoder the result is centred.
   */
  decode(latents: Tensor, options: { readonly of?: Tensor } = {}): Tensor {
    this.#checkRows("decode", latents, this.config.latents);
    checkOptions("decode", options, { of: aTensor });
    const { of } = options;
    const { normalisation, width } = this.config;
    if (of) this.#checkRows("decode", of, width);
    else if (normalisation !== "none") {
      throw new ArgumentError(`decode: expected of, the activations of these latents, for ${normalisation}`);
    }
    return latents.device.scope(() => {
      const out = add(matmul(this.#toDecoder(latents), this.weights.W_dec), this.weights.b_dec);
      return of ? this.#normalise(of).undo(out) : out;
    });
  }

  /** What is left of activations [rows, width] by way of the latents. */
  reconstruct(x: Tensor): Tensor {
    return x.device.scope(() => this.decode(this.encode(x), { of: x }));
  }

  /**
   * By how much activations x [rows, width] change when these latents change by `change` [rows, ids.length] and all that is no latent
   * (the bias, the error of the reconstruction) stays: change · W_dec, in the units of x. [rows, width]
   */
  changeOf(x: Tensor, ids: readonly number[], change: Tensor): Tensor {
    this.#checkRows("changeOf", x, this.config.width);
    checkLatents("changeOf", ids, this);
    this.#checkRows("changeOf", change, ids.length);
    return x.device.scope(() => {
      const rows = x.device.tensor(Uint32Array.from(ids), { dtype: "u32" });
      const written = matmul(this.#toDecoder(change, rows), gatherRows(this.weights.W_dec, rows));
      return this.#normalise(x).rescale(written);
    });
  }

  /** Frees the weights. */
  /**
   * The gradient with respect to latents, where that with respect to activations x [rows, width] is `gradient` [rows, width], and all that is no
   * latent stays. [rows, latents]
   */
  gradientOf(x: Tensor, gradient: Tensor): Tensor {
    this.#checkRows("gradientOf", x, this.config.width);
    this.#checkRows("gradientOf", gradient, this.config.width);
    // What latents go through on their way to x is a product with a diagonal, W_dec, and one with another diagonal.
    return x.device.scope(() =>
      this.#toDecoder(linear(this.#normalise(x).rescale(gradient), this.weights.W_dec)),
    );
  }

  /** Frees the weights. */
  dispose(): void {
    this.#memory?.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** Of all latents, or of those in `columns` u32 [n], which a rule that looks at each by itself allows. */
  #encode(x: Tensor, columns?: Tensor): Tensor {
    const { architecture, k, subtractBias, activation: kind } = this.config;
    const { W_enc, b_dec } = this.weights;
    const normed = this.#normalise(x).x;
    const input = subtractBias ? sub(normed, b_dec) : normed;
    const matrix = columns ? gatherRows(W_enc.transpose(), columns) : W_enc.transpose(); // [n, width]
    const part = (vector: Tensor | undefined) => picked(vector!, columns);
    if (architecture === "gated") {
      const product = linear(input, matrix);
      const magnitude = add(mul(product, exp(part(this.weights.r_mag))), part(this.weights.b_mag));
      const open = greater(add(product, part(this.weights.b_gate)), 0);
      return select(open, activation(magnitude, "relu"), 0);
    }
    const before = linear(input, matrix, { bias: part(this.weights.b_enc) });
    if (architecture === "jumprelu") {
      return select(greater(before, part(this.weights.threshold)), activation(before, "relu"), 0);
    }
    if (architecture === "topk") {
      const compared = this.#decoderNorms ? mul(before, this.#decoderNorms) : before;
      return select(greater(greatest(compared, k!), 0), activation(compared, "relu"), 0);
    }
    const active = activation(before, "relu");
    return kind === "tanh-relu" ? tanh(active) : active;
  }

  /** Latents [rows, n], of all or of those in `ids`, as the decoder takes them. */
  #toDecoder(latents: Tensor, ids?: Tensor): Tensor {
    const factor = this.weights.finetuning_scaling_factor;
    if (factor) return mul(latents, picked(factor, ids));
    return this.#decoderNorms ? div(latents, picked(this.#decoderNorms, ids)) : latents;
  }

  /** Activations as the encoder takes them, and the ways back. */
  #normalise(given: Tensor): {
    readonly x: Tensor;
    /** Of what has been decoded. */
    readonly undo: (y: Tensor) => Tensor;
    /** Of a difference of what has been decoded. */
    readonly rescale: (y: Tensor) => Tensor;
  } {
    const x = this.centred ? sub(given, mean(given, -1, { keepDims: true })) : given;
    const same = (y: Tensor) => y;
    switch (this.config.normalisation) {
      case "none":
        return { x, undo: same, rescale: same };
      case "constant_norm_rescale": {
        const factor = div(Math.sqrt(this.config.width), norm(x, -1, { keepDims: true }));
        const back = (y: Tensor) => div(y, factor);
        return { x: mul(x, factor), undo: back, rescale: back };
      }
      case "layer_norm": {
        const middle = mean(x, -1, { keepDims: true });
        const deviation = sqrt(variance(x, -1, { keepDims: true, correction: 1 }));
        const rescale = (y: Tensor) => mul(y, deviation);
        return {
          x: div(sub(x, middle), add(deviation, LAYER_NORM_EPSILON)),
          undo: (y) => add(rescale(y), middle),
          rescale,
        };
      }
    }
  }

  #checkRows(call: string, x: unknown, width: number): void {
    checkArgument(call, "x", x, aTensor);
    const { rank, shape } = x as Tensor;
    if (rank === 2 && shape[1] === width) return;
    throw new ShapeError(`${call}: ${this.name} takes [rows, ${width}], found ${showShape(shape)}`);
  }
}

/** Throws ArgumentError for what is no list of latents. */
export function checkLatents(call: string, ids: unknown, { latents }: SparseAutoencoder): void {
  const wrong = Array.isArray(ids)
    ? ids.find((id) => !(Number.isInteger(id) && id >= 0 && id < latents))
    : ids;
  if (Array.isArray(ids) && ids.length > 0 && wrong === undefined && new Set(ids).size === ids.length) return;
  const found = Array.isArray(ids) && wrong === undefined ? (ids.length === 0 ? "none" : "one twice") : wrong;
  throw new ArgumentError(`${call}: expected latents from 0 to ${latents - 1}, each once, found ${found}`);
}

/** Elements of a vector. */
function picked(vector: Tensor, ids: Tensor | undefined): Tensor {
  return ids ? gatherRows(vector.reshape([vector.size, 1]), ids).reshape([ids.size]) : vector;
}

/** 1 for the k greatest elements of each row, of equal ones the first; else 0. [rows, n] */
function greatest(x: Tensor, k: number): Tensor {
  const { indices } = topK(x, k);
  const ones = add(x.device.zeros([...indices.shape, 1]), 1);
  return scatterAdd(ones, indices, x.dim(1)).reshape(x.shape);
}

export const aSparseAutoencoder = aKindOf(SparseAutoencoder, "await loadSparseAutoencoder(…)");
