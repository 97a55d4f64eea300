import { aListOf, aNumber, aString, checkOptions, either, type Options, oneOf } from "../arguments.ts";
import { ArgumentError } from "../errors.ts";
import { randomUniform } from "../kernels/elementwise/random.ts";
import { commonName, HEAD } from "../model/checkpoint/entries/module-names.ts";
import type { LinearModule } from "../model/checkpoint/weights/parameters.ts";
import type { LanguageModel } from "../model/language-model.ts";
import { nearest } from "../nearest.ts";
import type { Scope } from "../tensor/scope.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** Rank, scale and layers of a {@link Lora} adapter. */
export interface LoraOptions {
  /** Default 8. */
  readonly rank?: number;
  /** What is added is alpha / rank · B A. Default twice the rank. */
  readonly alpha?: number;
  /**
   * The linear layers to adapt: ends of their names, such as `q_proj` or `layers.3.mlp.down_proj`, or all but the one that makes
   * the logits. Those of a vision tower only where the name says so (`vision_tower.vision_model.encoder.layers.0.self_attn.q_proj`).
   * Default the projections of queries and values.
   */
  readonly modules?: readonly string[] | "all-linear";
  /** Of the random numbers that A starts from. Default 0. */
  readonly seed?: number;
}

const OPTIONS: Options<LoraOptions> = {
  rank: aNumber,
  alpha: aNumber,
  modules: either(oneOf("all-linear"), aListOf(aString)),
  seed: aNumber,
};

const DEFAULT_MODULES = ["q_proj", "v_proj"];

/**
 * Low-rank adapters on linear layers of a loaded model (Hu et al. 2021, arXiv 2106.09685), which they change at once: each makes
 * alpha / rank · B A x beside its layer. A starts random (randomUniform within 1 / sqrt(its columns), as in PEFT), B at 0, so that nothing
 * changes before they are trained.
 */
export class Lora {
  readonly rank: number;
  readonly alpha: number;
  /** The names of the layers, as the checkpoint has them. */
  readonly modules: readonly string[];
  /** What there is to train, f32: `<module>.lora_A.weight` [rank, in] and `<module>.lora_B.weight` [out, rank]. */
  readonly parameters: Readonly<Record<string, Tensor>>;
  readonly #scope: Scope;
  readonly #detach: (() => void)[] = [];

  /** Throws ArgumentError for names that no linear layer has, with the nearest. */
  constructor(model: LanguageModel, options: LoraOptions = {}) {
    checkOptions("lora", options, OPTIONS);
    const { rank = 8, modules = DEFAULT_MODULES, seed = 0 } = options;
    const { alpha = 2 * rank } = options;
    if (!(Number.isInteger(rank) && rank > 0)) {
      throw new ArgumentError(`lora: expected a rank of 1 or more, found ${rank}`);
    }
    this.rank = rank;
    this.alpha = alpha;
    const { device, loaded } = model;
    const found = chosen(loaded.linears, modules);
    this.modules = found.map(([name]) => name);
    this.#scope = device.openScope();
    const parameters: Record<string, Tensor> = {};
    this.#scope.enter(() => {
      for (const [i, [name, { shape, layers }]] of found.entries()) {
        const [out, width] = shape;
        const bound = width ** -0.5;
        const a = randomUniform(device, [rank, width], { seed: seed * 65_537 + i, low: -bound, high: bound });
        const b = device.zeros([out, rank]);
        parameters[`${name}.lora_A.weight`] = a;
        parameters[`${name}.lora_B.weight`] = b;
        for (const { layer, part } of layers) {
          const update = { a, b, scale: alpha / rank, ...(part && { part }) };
          this.#detach.push(layer.adapt(update));
        }
      }
    });
    this.parameters = parameters;
  }

  /** The model is again what it was. */
  dispose(): void {
    for (const detach of this.#detach.splice(0)) detach();
    this.#scope.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

function chosen(
  linears: ReadonlyMap<string, LinearModule>,
  modules: readonly string[] | "all-linear",
): [string, LinearModule][] {
  checkModules("lora", [...linears.keys()], modules);
  return [...linears].filter(([name]) =>
    modules === "all-linear"
      ? commonName(`${name}.weight`) !== HEAD
      : modules.some((wanted) => endsWith(name, wanted)),
  );
}

/**
 * Throws ArgumentError for a module that none of the names ends with, with the nearest. The `matrixNames` of an outline are
 * enough to find a mistake before weights are loaded.
 */
export function checkModules(
  call: string,
  names: readonly string[],
  modules: readonly string[] | "all-linear",
): void {
  if (modules === "all-linear") return;
  for (const wanted of modules) {
    if (names.some((name) => endsWith(name, wanted))) continue;
    const ends = names.flatMap((name) => [name, name.slice(name.lastIndexOf(".") + 1)]);
    throw new ArgumentError(
      `${call}: no linear layer is called ${JSON.stringify(wanted)}; the nearest is "${nearest(wanted, ends)}"`,
    );
  }
}

/** Parts of a model that text does not go through. */
const OF_VISION =
  /(^|\.)(vision\w*|visual|multi_modal_projector|connector|perceiver_resampler|qformer|language_projection)\./;

/** Layers of the vision side are named by a path to it: their projections have the same names as the language model's. */
function endsWith(name: string, wanted: string): boolean {
  const named = name === wanted || name.endsWith(`.${wanted}`);
  return named && (OF_VISION.test(`${wanted}.`) || !OF_VISION.test(name));
}
