import { aListOf, aWholeFromOne, checkArgument, checkOptions, type Options } from "../../arguments.ts";
import { ArgumentError } from "../../errors.ts";
import { abs, mul } from "../../kernels/elementwise/elementwise.ts";
import { takeAlongAxis } from "../../kernels/movement/gather.ts";
import { MAX_TOP_K, topK } from "../../kernels/reduction/top-k.ts";
import type { Prompt } from "../../model/prompt/prompt.ts";
import { aModel, aPrompt, somePositions } from "../../patching/arguments.ts";
import type { Edit } from "../../patching/edit.ts";
import type { PatchableModel } from "../../patching/model.ts";
import { type Positions, resolvePositions } from "../../patching/positions.ts";
import { run } from "../../patching/run.ts";
import type { RunMetric } from "../../patching/run-metric.ts";
import { tap } from "../../patching/tap.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { aSparseAutoencoder, type SparseAutoencoder } from "./sparse-autoencoder.ts";

/** A latent at a position of a prompt. */
export interface LatentValue {
  readonly latent: number;
  readonly position: number;
  /** How active it is. */
  readonly value: number;
}

/** The same with what it does to a metric. */
export interface LatentAttribution extends LatentValue {
  /** The gradient of the metric with respect to the latent. */
  readonly gradient: number;
  /** `value` times `gradient`: by how much about the metric falls when the latent is ablated. */
  readonly effect: number;
}

/** Which latents {@link topLatents} and {@link latentAttribution} give, and of which run. */
export interface TopLatentOptions {
  /** Which positions. Default: all. */
  at?: Positions;
  /** How many latents, of all positions together. Default 10. */
  k?: number;
  /** Of the run that they are read in. */
  edits?: readonly Edit[];
}

const OPTIONS: Options<TopLatentOptions> = {
  at: somePositions,
  k: aWholeFromOne,
  edits: aListOf({ words: "an edit", holds: () => true }),
};

/** The latents that are most active in a prompt, the most active first. Throws like `run`, and SiteError as `sae.check` does. */
export async function topLatents(
  sae: SparseAutoencoder,
  model: PatchableModel,
  prompt: Prompt,
  options: TopLatentOptions = {},
): Promise<LatentValue[]> {
  check("topLatents", sae, model, prompt, options);
  const { at = "all", k = 10, edits = [] } = options;
  const positions = resolvePositions(at, model.sequenceOf(prompt));
  const { latents } = model.device.scope(() => {
    const x = run(model, prompt, { taps: { x: tap(sae.site, positions) }, edits }).x as Tensor;
    return { latents: greatest([sae.encode(x)], k) };
  });
  const [ids, values] = await readAll(latents);
  return Array.from(ids!, (id, i) => placed(id, positions, sae.latents, values![i]!)).filter(
    ({ value }) => value > 0,
  );
}

/**
 * Attribution patching of latents (Marks et al. 2024, arXiv 2403.19647): what each contributes to a metric of a prompt, estimated for all at
 * once by one pass forward and one back. What the autoencoder does not reconstruct stays as it is, as in the edits of latents; `ablateLatents`
 * measures exactly what is estimated here. The largest by magnitude first.
 *
 * Throws like `model.gradients`, and SiteError as `sae.check` does.
 */
export async function latentAttribution(
  sae: SparseAutoencoder,
  model: PatchableModel,
  prompt: Prompt,
  metric: RunMetric,
  options: TopLatentOptions = {},
): Promise<LatentAttribution[]> {
  check("latentAttribution", sae, model, prompt, options);
  const { at = "all", k = 10, edits = [] } = options;
  const positions = resolvePositions(at, model.sequenceOf(prompt));
  const found = model.device.scope(() => {
    const back = model.gradients(prompt, metric, {
      of: sae.site,
      at: positions,
      taps: { x: tap(sae.site, positions) },
      edits,
    });
    const x = back.x as Tensor;
    const slope = sae.gradientOf(x, (back.gradients as Record<string, Tensor>)[sae.site]!);
    const latents = sae.encode(x);
    return greatest([mul(latents, slope), latents, slope], k);
  });
  const [ids, effects, values, gradients] = await readAll(found);
  return Array.from(ids!, (id, i) => ({
    ...placed(id, positions, sae.latents, values![i]!),
    gradient: gradients![i]!,
    effect: effects![i]!,
  })).filter(({ value }) => value !== 0);
}

function check(
  call: string,
  sae: SparseAutoencoder,
  model: PatchableModel,
  prompt: Prompt,
  options: TopLatentOptions,
): void {
  checkArgument(call, "sae", sae, aSparseAutoencoder);
  checkArgument(call, "model", model, aModel);
  checkArgument(call, "prompt", prompt, aPrompt);
  checkOptions(call, options, OPTIONS);
  sae.check(model);
  const { k = 10 } = options;
  if (k > MAX_TOP_K) throw new ArgumentError(`${call}: expected k to be at most ${MAX_TOP_K}, found ${k}`);
}

/** Where the first of some tensors [rows, latents] is largest by magnitude, and what each is there. */
function greatest(tensors: readonly Tensor[], k: number): Tensor[] {
  const flat = tensors.map((tensor) => tensor.reshape([tensor.size]));
  const { indices } = topK(abs(flat[0]!), Math.min(k, flat[0]!.size));
  return [indices, ...flat.map((each) => takeAlongAxis(each, indices))];
}

async function readAll(tensors: readonly Tensor[]): Promise<readonly ArrayLike<number>[]> {
  const [first] = tensors;
  const values = await first!.device.read(tensors);
  for (const tensor of tensors) tensor.dispose();
  return values;
}

function placed(index: number, positions: readonly number[], latents: number, value: number): LatentValue {
  return { latent: index % latents, position: positions[Math.floor(index / latents)]!, value };
}
