import { ActivationStore } from "../../activations/activation-store.ts";
import {
  aCount,
  aFunction,
  aListOf,
  aNumber,
  anObject,
  aWholeFromOne,
  checkArgument,
  checkOptions,
  type Expected,
  type Options,
} from "../../arguments.ts";
import { SiteError } from "../../errors.ts";
import { concat } from "../../kernels/movement/concat.ts";
import { isObject } from "../../model/checkpoint/json/config-reader.ts";
import { LanguageModel } from "../../model/language-model.ts";
import { type ImageSpan, type Prompt, patchPositions, wholeSpan } from "../../model/prompt/prompt.ts";
import { siteInfo } from "../../model/walk/site-info.ts";
import { aPrompt } from "../../patching/arguments.ts";
import { run } from "../../patching/run.ts";
import { tap } from "../../patching/tap.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { type LatentActivity, type LatentExample, LatentExamples } from "./latent-examples.ts";
import { aSparseAutoencoder, checkLatents, type SparseAutoencoder } from "./sparse-autoencoder.ts";

/** Prompts and the model to run them, or a store of what it made of them. */
export type ActivationSource =
  | ActivationStore
  | { readonly model: LanguageModel; readonly prompts: Iterable<Prompt> | AsyncIterable<Prompt> };

/** Which latents {@link topActivations} is about, and how much of each it gives. */
export interface TopActivationOptions {
  /** Which latents. */
  latents: readonly number[];
  /** How many prompts of each. Default 10. */
  k?: number;
  /** How many tokens around, on each side. Default 10. */
  context?: number;
  /** Most tokens of prompts in a pass. Default 1024. */
  batchTokens?: number;
  /** Told how many prompts are done. */
  onProgress?: (prompts: number) => void;
}

const OPTIONS: Options<TopActivationOptions> = {
  latents: aListOf(aNumber),
  k: aWholeFromOne,
  context: aCount,
  batchTokens: aWholeFromOne,
  onProgress: aFunction,
};

const aSource: Expected = {
  words: "{ model, prompts }, or an activation store (await openActivations(…))",
  holds: (value) =>
    value instanceof ActivationStore ||
    (isObject(value) && value["model"] instanceof LanguageModel && anObject.holds(value["prompts"])),
};

/** The latents of a prompt, at the positions that are known. */
interface PromptLatents {
  readonly prompt: number;
  readonly positions: ArrayLike<number>;
  /** [positions, latents] */
  readonly values: Float32Array;
  /** Of prompts that were run; those of a store are read again when it is known which are needed. */
  readonly tokens?: Spelling;
}

type Spelling = Pick<Prompt, "tokens" | "spans">;

/** A prompt that is kept for a latent: where it is, and the latent at all positions that are known. */
interface Candidate extends Omit<PromptLatents, "values"> {
  readonly value: number;
  readonly position: number;
  readonly values: Float32Array;
}

/**
 * The tokens at which latents are most active, over prompts or an activation store of any size: the best of each of `k` prompts, with the
 * tokens around; of pictures the patches. Memory grows with latents × k, not with the number of prompts.
 *
 * @throws SiteError where model or store lack the autoencoder's site, or it has another width; ArgumentError for other latents
 *
 * @example console.log(await topActivations(sae, { model, prompts }, { latents: [17, 203] }));
 */
export async function topActivations(
  sae: SparseAutoencoder,
  source: ActivationSource,
  options: TopActivationOptions,
): Promise<LatentExamples> {
  checkArgument("topActivations", "sae", sae, aSparseAutoencoder);
  checkArgument("topActivations", "source", source, aSource);
  checkOptions("topActivations", options, OPTIONS, { required: ["latents"] });
  const { latents, k = 10, context = 10, batchTokens = 1024, onProgress } = options;
  const ids = Array.from(latents);
  checkLatents("topActivations", ids, sae);
  const best: Candidate[][] = ids.map(() => []);
  const active: number[] = ids.map(() => 0);
  let [tokens, done] = [0, 0];
  const from =
    source instanceof ActivationStore
      ? latentsOfStore(sae, source, ids)
      : latentsOfPrompts(sae, source, ids, batchTokens);
  for await (const each of from) {
    tokens += each.positions.length;
    for (const which of ids.keys()) active[which]! += take(best[which]!, each, { which, of: ids.length, k });
    onProgress?.(++done);
  }
  const spelt = source instanceof ActivationStore ? await spellings(source, best.flat()) : undefined;
  const activity = ids.map((latent, which): LatentActivity => {
    const examples = best[which]!.map((candidate) =>
      exampleOf(candidate, candidate.tokens ?? spelt!.get(candidate.prompt)!, context),
    );
    return { latent, examples, active: active[which]!, tokens };
  });
  return new LatentExamples({ autoencoder: sae.name, site: sae.site, latents: activity });
}

/** Keeps a prompt if it is among the k best of a latent. Gives the number of tokens at which that is active. */
function take(
  best: Candidate[],
  { values, positions, ...prompt }: PromptLatents,
  { which, of, k }: { readonly which: number; readonly of: number; readonly k: number },
): number {
  const own = Float32Array.from({ length: positions.length }, (_, row) => values[row * of + which]!);
  let [at, count] = [0, 0];
  for (const [row, value] of own.entries()) {
    if (value > 0) count++;
    if (value > own[at]!) at = row;
  }
  const value = own[at] ?? 0;
  // Of equal ones the earlier stays.
  if (!(value > 0) || (best.length === k && !(value > best.at(-1)!.value))) return count;
  const place = best.findIndex((other) => value > other.value);
  best.splice(place < 0 ? best.length : place, 0, {
    ...prompt,
    positions,
    values: own,
    value,
    position: positions[at]!,
  });
  if (best.length > k) best.pop();
  return count;
}

async function* latentsOfPrompts(
  sae: SparseAutoencoder,
  { model, prompts }: Exclude<ActivationSource, ActivationStore>,
  ids: readonly number[],
  batchTokens: number,
): AsyncGenerator<PromptLatents> {
  sae.check(model);
  const { order } = siteInfo(model.sites, sae.site);
  const stopAfter = Math.max(0, order);
  let number = 0;
  async function* computed(batch: readonly Prompt[]): AsyncGenerator<PromptLatents> {
    const latents = model.device.scope(() => {
      const { x } = run(model, batch, { taps: { x: tap(sae.site) }, stopAfter });
      return sae.encodeSome(x.length === 1 ? x[0]! : concat(x as Tensor[]), ids);
    });
    const values = (await latents.read()) as Float32Array;
    latents.dispose();
    let row = 0;
    for (const prompt of batch) {
      const { length, tokens, spans } = model.sequenceOf(prompt);
      const own = values.subarray(row * ids.length, (row + length) * ids.length);
      row += length;
      yield { prompt: number++, positions: range(length), values: own, tokens: { tokens, spans } };
    }
  }
  let [batch, size]: [Prompt[], number] = [[], 0];
  for await (const prompt of prompts) {
    checkArgument("topActivations", "each prompt", prompt, aPrompt);
    if (batch.length > 0 && size + prompt.length > batchTokens) {
      yield* computed(batch);
      [batch, size] = [[], 0];
    }
    batch.push(prompt);
    size += prompt.length;
  }
  if (batch.length > 0) yield* computed(batch);
}

async function* latentsOfStore(
  sae: SparseAutoencoder,
  store: ActivationStore,
  ids: readonly number[],
): AsyncGenerator<PromptLatents> {
  const { width } = store.manifest.sites.find(({ site }) => site === sae.site) ?? {};
  if (width !== sae.config.width) {
    const found = width === undefined ? store.sites.join(", ") : `${sae.site} ${width} wide`;
    throw new SiteError(
      `${store.name}: expected ${sae.site} ${sae.config.width} wide, which ${sae.name} is of, found ${found}`,
    );
  }
  // A prompt's rows may come in two batches.
  let held: { prompt: number; positions: number[]; values: number[] } | undefined;
  const given = () => held && { ...held, values: Float32Array.from(held.values) };
  for await (const { vectors, rows, prompts, positions } of store.read({ sites: sae.site })) {
    const latents = sae.device.scope(() =>
      sae.encodeSome(sae.device.tensor(vectors, { shape: [rows, width!] }), ids),
    );
    const values = await latents.read();
    latents.dispose();
    for (let row = 0; row < rows; row++) {
      const prompt = prompts[row]!;
      if (held?.prompt !== prompt) {
        if (held) yield given()!;
        held = { prompt, positions: [], values: [] };
      }
      held.positions.push(positions[row]!);
      for (let i = 0; i < ids.length; i++) held.values.push(values[row * ids.length + i]!);
    }
  }
  if (held) yield given()!;
}

/** The tokens of the prompts of a store that are needed. */
async function spellings(
  store: ActivationStore,
  candidates: readonly Candidate[],
): Promise<Map<number, Spelling>> {
  const found = new Map<number, Spelling>();
  const prompts = [...new Set(candidates.map(({ prompt }) => prompt))];
  if (prompts.length === 0) return found;
  for await (const { prompt, tokens, spans } of store.readPrompts({ prompts }))
    found.set(prompt, { tokens, spans });
  return found;
}

function exampleOf(
  { value, prompt, position, positions, values }: Candidate,
  { tokens, spans }: Spelling,
  context: number,
): LatentExample {
  const byPosition = new Map(Array.from(positions, (at, row) => [at, values[row]!]));
  const valueAt = (at: number) => byPosition.get(at) ?? Number.NaN;
  const start = Math.max(0, position - context);
  const window = range(Math.min(tokens.length, position + context + 1) - start).map((i) => start + i);
  const patch = patchAt(spans, position, valueAt);
  return {
    ...{ value, prompt, position, token: tokens[position]!, start },
    tokens: window.map((at) => tokens[at]!),
    values: window.map(valueAt),
    ...(patch && { patch }),
  };
}

/** Which patch of which picture a position is, where it is one. */
function patchAt(
  spans: Readonly<Record<string, ImageSpan>>,
  position: number,
  valueAt: (position: number) => number,
): LatentExample["patch"] {
  for (const [span, image] of Object.entries(spans)) {
    const whole = wholeSpan(image);
    if (!whole.grid) continue;
    const places = patchPositions(whole);
    const index = places.indexOf(position);
    if (index < 0) continue;
    const { grid } = whole;
    const [row, column] = [Math.floor(index / grid.columns), index % grid.columns];
    return { span, grid, row, column, values: places.map(valueAt) };
  }
  return undefined;
}

function range(length: number): number[] {
  return Array.from({ length }, (_, i) => i);
}
