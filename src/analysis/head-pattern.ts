import { aNumber, checkArgument, checkOptions, type Options } from "../arguments.ts";
import { mean } from "../kernels/reduction/reduce.ts";
import type { LanguageModel } from "../model/language-model.ts";
import type { Prompt } from "../model/prompt/prompt.ts";
import { aModel, aPrompt } from "../patching/arguments.ts";
import { run } from "../patching/run.ts";
import { tap } from "../patching/tap.ts";
import { HeadPattern } from "./head-pattern-result.ts";
import { checkLayers } from "./layers.ts";

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
  checkArgument("headPattern", "model", model, aModel);
  checkArgument("headPattern", "prompt", prompt, aPrompt);
  checkOptions("headPattern", options, OPTIONS, { required: ["layer"] });
  const { layer, head } = options;
  checkLayers(model, [layer], "headPattern");
  const { ids, tokens } = model.sequenceOf(prompt);
  using pattern = model.device.scope(() => {
    const part = head === undefined ? {} : { head };
    const { x } = run(model, prompt, { taps: { x: tap(`pattern.${layer}`, "all", part) }, stopAfter: layer });
    return head === undefined ? mean(x, 0) : x; // [tokens, tokens]
  });
  const flat = await pattern.read();
  return new HeadPattern({
    // A decoder that strips blanks leaves nothing of a lone one.
    tokens: ids.map((id, i) => model.tokenizer.decode([id]) || tokens[i]!),
    layer,
    ...(head !== undefined && { head }),
    weights: ids.map((_, i) => [...flat.subarray(i * ids.length, (i + 1) * ids.length)]),
  });
}
