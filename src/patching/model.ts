import { aFunction, aNumber, aString, checkArgument, checkOptions } from "../arguments.ts";
import type { Folder } from "../model/checkpoint/source/folder.ts";
import { LanguageModel } from "../model/language-model.ts";
import { namedWeight, type WeightName } from "../model/layers/named-weights.ts";
import type { LoadOptions } from "../model/load-options.ts";
import { loadParts } from "../model/open-model.ts";
import { checkContext, type Prompt } from "../model/prompt/prompt.ts";
import { forward } from "../model/walk/forward.ts";
import { Pass } from "../model/walk/pass.ts";
import type { SiteFilter, Walk } from "../model/walk/site-events.ts";
import { scoped } from "../model/walk/walk.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { aPrompt, checkPrompts } from "./arguments.ts";
import { type ActivationCache, type CacheOptions, cacheAll, cacheBytes } from "./cache-all.ts";
import { type Generated, type GenerateOptions, generate } from "./generate.ts";
import { type BatchGradients, type GradientOptions, type Gradients, gradients } from "./gradients.ts";
import type { Positions } from "./positions.ts";
import { type Recording, type RecordOptions, record } from "./recording.ts";
import { type BatchResult, type RunOptions, type RunResult, run } from "./run.ts";
import type { RunMetric } from "./run-metric.ts";
import type { SiteFilterLike, SitePattern, SitesOf } from "./site-patterns.ts";
import type { Taps } from "./tap.ts";

/**
 * Loads a Hugging Face checkpoint, ready to be looked into: from a folder, a URL, the hub (`org/name`), or
 * by the name of a model that comes with xpatch (`xpatch:vlm`, `xpatch:llm`, `xpatch:smollm2`). Throws CheckpointError for
 * what is damaged, missing or of an unsupported kind.
 *
 * @example const model = await loadModel("xpatch:vlm", { device });
 */
export async function loadModel(ref: string | Folder, options: LoadOptions): Promise<PatchableModel> {
  return new PatchableModel(await loadParts(ref, options));
}

/** A language model whose activations can be read and changed. */
export class PatchableModel extends LanguageModel {
  /** One pass with taps and edits, recorded at once. See `run` in run.ts for what comes back and what throws. */
  run<const T extends Taps = Record<never, never>>(prompt: Prompt, options?: RunOptions<T>): RunResult<T>;
  run<const T extends Taps = Record<never, never>>(
    prompts: readonly Prompt[],
    options?: RunOptions<T>,
  ): BatchResult<T>;
  run(input: Prompt | readonly Prompt[], options: RunOptions<Taps> = {}): unknown {
    return run(this, input as Prompt, options);
  }

  /**
   * The activations of one run by site: all, or those that patterns name (`"resid_post.*"`, `["z.*", "embed"]`) or a function
   * lets through. See `cacheAll` in cache-all.ts for positions, edits and the limit on memory.
   *
   * @example const cache = model.cacheAll(prompt, "resid_post.*"); // cache["resid_post.15"]: [positions, width]
   */
  cacheAll<const Pattern extends SitePattern = "*">(
    prompt: Prompt,
    filter?: SiteFilterLike<Pattern>,
    options?: CacheOptions,
  ): ActivationCache<SitesOf<Pattern>> {
    return cacheAll(this, prompt, filter, options);
  }

  /** The bytes that {@link cacheAll} with the same arguments would take. Computes nothing. */
  cacheBytes(prompt: Prompt, filter?: SiteFilterLike, options?: CacheOptions): number {
    return cacheBytes(this, prompt, filter, options);
  }

  /**
   * A weight by name, in the orientation x @ W: `W_U` [width, vocab], `W_O.5` with a head [headDim, width]. A view of the
   * model's own memory where it can be. See `namedWeight` in named-weights.ts; docs/patching.md has the names.
   *
   * @example const ov = matmul(model.weight("W_V.5", { head: 0 }), model.weight("W_O.5", { head: 0 }));
   */
  weight(name: WeightName, options: { readonly head?: number } = {}): Tensor {
    checkArgument("weight", "name", name, aString);
    checkOptions("weight", options, { head: aNumber });
    return namedWeight(this.network.stack, this.config, name, options);
  }

  /** Names of the weights as the checkpoint has them, for {@link gradients}. */
  get parameterNames(): string[] {
    return [...this.loaded.parameters.keys()];
  }

  /**
   * The gradient of a metric (`logitDifference(" Paris", " Rome")`, `nextTokenLoss()`, a function of logits and taps) with respect
   * to activations, weights or other tensors: one pass forward and one back. See `gradients` in gradients.ts.
   *
   * @example const { gradients } = model.gradients(prompt, logProbability(" Paris"), { of: "resid_post.*", at: -1 });
   */
  gradients<
    const Pattern extends SitePattern = never,
    const At extends Positions = "all",
    const T extends Taps = Record<never, never>,
    const Name extends string = never,
  >(
    prompt: Prompt,
    metric: RunMetric,
    options: GradientOptions<Pattern, At, T, Name>,
  ): Gradients<Pattern, At, T, Name>;
  gradients<
    const Pattern extends SitePattern = never,
    const At extends Positions = "all",
    const T extends Taps = Record<never, never>,
    const Name extends string = never,
  >(
    prompts: readonly Prompt[],
    metric: RunMetric,
    options: GradientOptions<Pattern, At, T, Name>,
  ): BatchGradients<Pattern, At, T, Name>;
  gradients(input: Prompt | readonly Prompt[], metric: RunMetric, options: GradientOptions): unknown {
    return gradients(this, input as Prompt, metric, options);
  }

  /** Continues one prompt, or several at once; greedy unless a temperature is given. */
  generate(prompt: Prompt, options: GenerateOptions): Promise<Generated>;
  generate(prompts: readonly Prompt[], options: GenerateOptions): Promise<Generated[]>;
  async generate(
    input: Prompt | readonly Prompt[],
    options: GenerateOptions,
  ): Promise<Generated | Generated[]> {
    checkPrompts("generate", input);
    if (Array.isArray(input)) return generate(this, input as readonly Prompt[], options);
    const [answer] = await generate(this, [input as Prompt], options);
    return answer!;
  }

  /**
   * The forward pass itself: yields every activation (or those that `sites` lets through) in order, returns the logits
   * [1, vocab] of the last token. Assign to an event's `value` to change what follows; `break` to stop early. A value
   * belongs to the walk and is gone once it goes on: keep it with `copy(event.value)`, made outside the walk.
   *
   * @example for (const s of model.walk(prompt)) if (s.site === "resid_post.3") s.value = zeroRows(s.value, [0]);
   */
  walk(prompt: Prompt, sites: SiteFilter = () => true): Walk<Tensor> {
    checkArgument("walk", "prompt", prompt, aPrompt);
    checkArgument("walk", "sites", sites, aFunction);
    const { network, device } = this;
    checkContext(prompt.length, this.config.context);
    const sequences = [this.sequenceOf(prompt)];
    return scoped(device, () => {
      const pass = Pass.over(device, sequences, { inUse: sites });
      return forward(network, sequences, pass) as Walk<Tensor>;
    });
  }

  /** A run, edited or not, that patched ones can start from; see `record` and `resume`. */
  record(prompts: Prompt | readonly Prompt[], options?: RecordOptions): Recording {
    checkPrompts("record", prompts);
    return record(this, Array.isArray(prompts) ? prompts : [prompts as Prompt], options);
  }
}
