import { aNumber, checkArgument, checkOptions, type Options } from "../../arguments.ts";
import { mean } from "../../kernels/reduction/reduce.ts";
import type { LanguageModel } from "../../model/language-model.ts";
import type { Prompt } from "../../model/prompt/prompt.ts";
import { aModel, aPrompt } from "../../patching/arguments.ts";
import { run } from "../../patching/run.ts";
import { settingOf } from "../../patching/setting.ts";
import { tap } from "../../patching/tap.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { checkLayers } from "../layers.ts";
import { tokenTexts } from "../token-texts.ts";
import { HeadPattern } from "./head-pattern-result.ts";

/** Which head {@link headPattern} shows. */
export interface HeadPatternOptions {
  layer: number;
  /** Default: the mean of all heads of the layer. */
  head?: number;
}

const OPTIONS: Options<HeadPatternOptions> = { layer: aNumber, head: aNumber };

/**
 * The attention pattern of a head over a prompt's own tokens: which tokens each looks at, as plain numbers that print as a
 * table. In an encoder-decoder these are the decoder's tokens. Throws SiteError where the model has no such layer or head.
 *
 * @example console.log(await headPattern(model, prompt, { layer: 3, head: 5 }));
 */
export async function headPattern(
  model: LanguageModel,
  prompt: Prompt,
  options: HeadPatternOptions,
): Promise<HeadPattern> {
  checkPattern("headPattern", model, prompt, options, OPTIONS);
  const { layer, head } = options;
  const part = head === undefined ? {} : { head };
  const read = await readPattern(model, prompt, layer, part, (pattern) =>
    head === undefined ? mean(pattern, 0) : pattern,
  );
  return patternOf(model, prompt, layer, read, head);
}

/** The same for every head of a layer, from one pass. Throws SiteError where the model has no such layer. */
export async function headPatterns(
  model: LanguageModel,
  prompt: Prompt,
  options: Omit<HeadPatternOptions, "head">,
): Promise<HeadPattern[]> {
  checkPattern("headPatterns", model, prompt, options, { layer: aNumber });
  const { layer } = options;
  const read = await readPattern(model, prompt, layer, {}, (pattern) => pattern);
  const size = model.sequenceOf(prompt).ids.length ** 2;
  return Array.from({ length: read.length / size }, (_, head) =>
    patternOf(model, prompt, layer, read.subarray(head * size, (head + 1) * size), head),
  );
}

function checkPattern<T extends { layer: number }>(
  call: string,
  model: LanguageModel,
  prompt: Prompt,
  options: T,
  known: Options<T>,
): void {
  checkArgument(call, "model", model, aModel);
  checkArgument(call, "prompt", prompt, aPrompt);
  checkOptions(call, options, known, { required: ["layer" as keyof T & string] });
  checkLayers(model, [options.layer], call);
}

/** What `part` leaves of a pattern, [heads, tokens, tokens] or [tokens, tokens]. */
async function readPattern(
  model: LanguageModel,
  prompt: Prompt,
  layer: number,
  part: { head?: number },
  reduce: (pattern: Tensor) => Tensor,
): Promise<Float32Array> {
  using pattern = model.device.scope(() => {
    const taps = { x: tap(`pattern.${layer}`, "all", part) };
    return reduce(run(model, prompt, { taps, stopAfter: layer }).x);
  });
  return (await pattern.read()) as Float32Array;
}

function patternOf(
  model: LanguageModel,
  prompt: Prompt,
  layer: number,
  flat: Float32Array,
  head?: number,
): HeadPattern {
  const sequence = model.sequenceOf(prompt);
  const { ids } = sequence;
  return new HeadPattern({
    setting: settingOf(model),
    tokens: tokenTexts(model.tokenizer, sequence),
    layer,
    ...(head !== undefined && { head }),
    weights: ids.map((_, i) => [...flat.subarray(i * ids.length, (i + 1) * ids.length)]),
  });
}
