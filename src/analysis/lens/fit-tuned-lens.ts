import { aListOf, aNumber, checkOptions, type Expected, type Options } from "../../arguments.ts";
import { ArgumentError, PromptError } from "../../errors.ts";
import { sub } from "../../kernels/elementwise/elementwise.ts";
import { concat } from "../../kernels/movement/concat.ts";
import type { LanguageModel } from "../../model/language-model.ts";
import { hashPrompts, type Prompt } from "../../model/prompt/prompt.ts";
import { checkModelAndPrompts, somePositions } from "../../patching/arguments.ts";
import type { Positions } from "../../patching/positions.ts";
import { run } from "../../patching/run.ts";
import { tap } from "../../patching/tap.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { allLayers, checkLayers } from "../layers.ts";
import { batches } from "../vectors/task-vectors.ts";
import { Moments } from "./ridge.ts";
import { TunedLens } from "./tuned-lens.ts";

/** Layers, positions and regularisation of {@link fitTunedLens}. */
export interface FitLensOptions {
  /** Layers, ascending. Default: all. */
  layers?: readonly number[];
  /**
   * How strongly maps are drawn to the identity, which is the logit lens: relative to the variance of each feature. Default 0.1.
   * The fewer positions there are for each feature, the more of it.
   */
  ridge?: number;
  /** Positions of each prompt to fit to. Default all. */
  at?: Positions;
  /** Most tokens of prompts in one pass; bounds the memory. Default 1024. */
  batchTokens?: number;
}

const aRidge: Expected = { words: "a number from 0", holds: (r) => Number.isFinite(r) && (r as number) >= 0 };
const OPTIONS: Options<FitLensOptions> = {
  layers: aListOf(aNumber),
  ridge: aRidge,
  at: somePositions,
  batchTokens: aNumber,
};

/**
 * Fits a tuned lens in closed form: ridge regression of what the layers above add to the residual stream, last minus own, over the
 * positions of these prompts. (Belrose et al. train the same maps to the least KL divergence instead.) Reads each activation once;
 * the equations are solved in f64 on the host, a second or so a layer at a width of 576.
 *
 * Throws ArgumentError where the positions do not determine the maps: with `ridge: 0` fewer than the width and one, or features that
 * depend on each other; SiteError and PromptError like `run`.
 *
 * @example const lens = await fitTunedLens(model, prompts);
 * console.log((await lens.read(model, prompt)).table());
 */
export async function fitTunedLens(
  model: LanguageModel,
  prompts: readonly Prompt[],
  options: FitLensOptions = {},
): Promise<TunedLens> {
  checkModelAndPrompts("fitTunedLens", model, "prompts", prompts);
  checkOptions("fitTunedLens", options, OPTIONS);
  const { layers = allLayers(model), ridge = 0.1, at = "all", batchTokens = 1024 } = options;
  checkLayers(model, layers, "fitTunedLens");
  if (prompts.length === 0) throw new PromptError("fitTunedLens: expected at least one prompt, found none");
  const { device } = model;
  const last = model.config.layers - 1;
  const moments = layers.map(() => new Moments(model.config.width));
  const taps = Object.fromEntries(
    [...layers, last].map((layer) => [`${layer}`, tap(`resid_post.${layer}`, at)]),
  );
  for (const batch of batches(prompts, batchTokens)) {
    const read = device.scope(() => {
      const tapped = run(model, batch, { taps, stopAfter: last });
      const streams = [...layers, last].map((layer) => asRows(tapped[`${layer}`]!));
      const final = streams.pop()!;
      return streams.flatMap((x) => [x, sub(final, x)]);
    });
    const values = (await device.read(read).finally(() => disposeAll(read))) as Float32Array[];
    for (const [l, each] of moments.entries()) each.add(values[2 * l]!, values[2 * l + 1]!);
  }
  const [{ count, width }] = moments as [Moments];
  if (ridge === 0 && count < width + 1) {
    throw new ArgumentError(
      `fitTunedLens: expected ${width + 1} positions or more, one above the width, found ${count}; with a ridge fewer do`,
    );
  }
  const fits = moments.map((each, l) => {
    const fit = each.fit(ridge);
    if (fit?.map.every(Number.isFinite) && fit.bias.every(Number.isFinite)) return fit;
    throw new ArgumentError(
      `fitTunedLens: the ${count} positions do not determine the map of layer ${layers[l]}; expected finite activations ` +
        `whose features do not depend on each other, or a ridge above ${ridge}`,
    );
  });
  const tensorOf = (parts: readonly Float32Array[], shape: readonly number[]) => {
    const all = new Float32Array(shape.reduce((a, b) => a * b));
    parts.forEach((part, i) => {
      all.set(part, i * part.length);
    });
    return device.tensor(all, { shape });
  };
  return new TunedLens(
    tensorOf(
      fits.map(({ map }) => map),
      [layers.length, width, width],
    ),
    tensorOf(
      fits.map(({ bias }) => bias),
      [layers.length, width],
    ),
    {
      model: model.name,
      layers: [...layers],
      positions: count,
      prompts: prompts.length,
      promptHash: hashPrompts(prompts),
      ridge,
      weights: model.storedDtypes[0] ?? "unknown",
    },
  );
}

/** A tap of several prompts as rows: [positions of all, width]. */
function asRows(tapped: Tensor | Tensor[]): Tensor {
  if (!Array.isArray(tapped)) return tapped;
  return tapped.length === 1 ? tapped[0]! : concat(tapped);
}

function disposeAll(tensors: readonly Tensor[]): void {
  for (const tensor of tensors) tensor.dispose();
}
