import {
  aFunction,
  aListOf,
  aNumber,
  anArray,
  checkArgument,
  checkOptions,
  type Expected,
  either,
  type Options,
} from "../arguments.ts";
import { SiteError } from "../errors.ts";
import { imageRowCount } from "../model/checkpoint/config/vision-setup.ts";
import type { LanguageModel } from "../model/language-model.ts";
import type { Prompt } from "../model/prompt/prompt.ts";
import { TextStream } from "../model/prompt/text-stream.ts";
import { generateTokens } from "../model/walk/generate-tokens.ts";
import { createSampler, type SamplingOptions } from "../model/walk/sampling.ts";
import { NO_VISITOR } from "../model/walk/site-events.ts";
import { checkEdits } from "./arguments.ts";
import type { Edit } from "./edit.ts";
import { checkDirections, type ResolvedEdit } from "./edit-value.ts";
import { type Batch, batchOf, type Target } from "./site-targets.ts";
import { type Computed, resolveEdits, Watcher } from "./watcher.ts";

/** How many tokens are generated, how they are chosen, and what is edited and tapped on the way. */
export interface GenerateOptions extends SamplingOptions {
  /** Most tokens to add to each prompt. */
  maxNewTokens: number;
  /**
   * Changes to make on the way. An edit fires in the step that computes its position: those of the prompt in the first,
   * those of new tokens (positions from the prompt's length on) later. Negative positions count from the prompt's end, and
   * "all" are those of the prompt. The final norm and the logits are computed from the prompt's last token on; of a
   * token before it they change nothing.
   */
  edits?: readonly Edit[];
  /** Ids that end a sequence, in place of the checkpoint's own. */
  stopIds?: Iterable<number>;
  /**
   * Called with each new token as it comes, and with what the text has grown by: the pieces of a prompt joined are the text
   * of its answer. Special tokens, and bytes of a character that is not complete yet, add nothing.
   */
  onToken?: (token: { prompt: number; id: number; text: string }) => void;
}

/** What was generated for one prompt. */
export interface Generated {
  /** New ids, the one that ended the answer included. */
  readonly ids: readonly number[];
  /** Their text without special tokens. */
  readonly text: string;
  /** Whether an end token came, rather than the limit. */
  readonly ended: boolean;
  /** Edits of positions that were never computed, because the answer ended before them. */
  readonly unfired: readonly UnfiredEdit[];
}

/** An edit of positions that a generation never computed, because the answer ended before them. */
export interface UnfiredEdit {
  /** Index in the list of edits. */
  readonly edit: number;
  /** What it is called in messages: operation, site and positions. */
  readonly label: string;
  /** Those of its positions where it did not fire. */
  readonly positions: readonly number[];
}

const anIterable: Expected = {
  words: "a list or set of ids",
  holds: (value) => typeof value === "object" && value !== null && Symbol.iterator in value,
};

const OPTIONS: Options<GenerateOptions> = {
  maxNewTokens: aNumber,
  edits: anArray,
  stopIds: anIterable,
  onToken: aFunction,
  temperature: aNumber,
  topK: aNumber,
  topP: aNumber,
  seed: either(aNumber, aListOf(aNumber)),
};

/**
 * Continues prompts with a KV cache; several at once share every step. Greedy unless a temperature is given.
 *
 * Throws before anything runs: ArgumentError, PromptError for what does not fit the context, SiteError for an edit that
 * cannot fire. Where an answer ends before an edit's position it says so. Throws GenerationError, which names the prompt
 * and the new token, for logits that are NaN or all -infinity.
 */
export async function generate(
  model: LanguageModel,
  given: readonly Prompt[],
  options: GenerateOptions,
): Promise<Generated[]> {
  checkOptions("generate", options, OPTIONS, { required: ["maxNewTokens"] });
  const { maxNewTokens, edits = [], stopIds = model.endIds, onToken, ...sampling } = options;
  const stops = new Set(stopIds);
  checkArgument("generate", "stopIds", [...stops], aListOf(aNumber));
  checkEdits("generate", edits);
  const { network, tokenizer } = model;
  const { device } = network;
  const prompts = given.map((prompt) => model.sequenceOf(prompt));
  const scope = device.openScope();
  const answers: number[][] = prompts.map(() => []);
  const streams = prompts.map(() => new TextStream(tokenizer));
  try {
    // The last new token is never fed back, so its position is not computed.
    const batch = batchOf(prompts, model.config.vision);
    const resolved = scope.enter(() => resolveEdits(edits, model.sites, device, batch, maxNewTokens - 1));
    for (const edit of resolved) {
      checkHead(edit.target, prompts, model);
      checkKeys(edit, prompts, batch);
    }
    await checkDirections(resolved);
    const watcher = new Watcher(resolved, {});
    const options = {
      maxNewTokens,
      stopIds: stops,
      sampler: createSampler(sampling, prompts.length),
      visitor: edits.length > 0 ? watcher : NO_VISITOR, // what nobody watches may share its steps
    };
    for await (const { sequences, ids } of generateTokens(network, prompts, options)) {
      sequences.forEach((sequence, i) => {
        const id = ids[i]!;
        answers[sequence]!.push(id);
        const last = stops.has(id) || answers[sequence]!.length === maxNewTokens;
        onToken?.({ prompt: sequence, id, text: streams[sequence]!.next(id, last) });
      });
    }
    const reached = prompts.map((prompt, s) => prompt.length + answers[s]!.length - 1);
    watcher.finish(computedBy(prompts, reached, model));
    return answers.map((ids, s) => ({
      ids,
      text: tokenizer.decode(ids, { skipSpecial: true }),
      ended: ids.length > 0 && stops.has(ids.at(-1)!),
      unfired: unfired(resolved, s, reached[s]!),
    }));
  } finally {
    scope.dispose();
  }
}

/** The sites behind the layers, which are computed only where a token is to be chosen. */
const isOfHead = ({ info }: Target, { config }: LanguageModel) => info.order >= config.layers;

/** Throws SiteError for an edit of the head that names only tokens whose logits nobody needs. */
function checkHead(target: Target, prompts: readonly Prompt[], model: LanguageModel): void {
  if (!isOfHead(target, model)) return;
  for (const [s, positions] of target.positions) {
    const { last } = prompts[s]!;
    if (positions.some((position) => position >= last)) continue;
    throw new SiteError(
      `${target.label}: while generating, ${target.site} is computed from the prompt's last token on, which is position ${last}`,
    );
  }
}

/**
 * Throws SiteError for a value at scores or patterns that has not a number for each key that there will be: the prompt's,
 * then one more with each new token; or the rows of its images, or what an encoder has read.
 */
function checkKeys({ target, value }: ResolvedEdit, prompts: readonly Prompt[], { images }: Batch): void {
  const { sequences, keyRowsOf, keySequences } = target.info;
  if (!value || target.layout !== "attention" || sequences !== "prompts") return;
  const found = value.dim(-1);
  for (const [s, positions] of target.positions) {
    const ofImages = keyRowsOf && images[s]!.reduce((sum, image) => sum + imageRowCount(image, keyRowsOf), 0);
    const ofOthers = keySequences ? prompts[s]!.source!.length : ofImages;
    const keysAt = (position: number) => ofOthers ?? Math.max(prompts[s]!.length, position + 1);
    const position = positions.find((each) => keysAt(each) !== found);
    if (position === undefined) continue;
    const expected = keysAt(position);
    throw new SiteError(
      `${target.label}: expected values for ${expected} keys at position ${position}, found ${found}`,
    );
  }
}

/** What was computed when sequence s came to have `reached[s]` computed positions. */
function computedBy(prompts: readonly Prompt[], reached: readonly number[], model: LanguageModel): Computed {
  return (target, sequence, position) => {
    if (target.info.sequences !== "prompts") return true;
    const first = isOfHead(target, model) ? prompts[sequence]!.last : 0;
    return position >= first && position < reached[sequence]!;
  };
}

function unfired(edits: readonly ResolvedEdit[], sequence: number, reached: number): UnfiredEdit[] {
  return edits.flatMap(({ target }, edit) => {
    if (target.info.sequences !== "prompts") return [];
    const positions = (target.positions.get(sequence) ?? []).filter((position) => position >= reached);
    return positions.length === 0 ? [] : [{ edit, label: target.label, positions }];
  });
}
