import { generateTokens } from "../model/generate.ts";
import type { LanguageModel } from "../model/language-model.ts";
import type { Prompt } from "../model/prompt.ts";
import { createSampler, type SamplingOptions } from "../model/sampling.ts";
import { TextStream } from "../model/text-stream.ts";
import type { Edit } from "./edit.ts";
import { batchOf } from "./site-targets.ts";
import { resolveEdits, Watcher } from "./watcher.ts";

export interface GenerateOptions extends SamplingOptions {
  /** Most tokens to add to each prompt. */
  maxNewTokens: number;
  /**
   * Changes to make on the way. An edit fires in the step that computes its position: those of the prompt in the first,
   * those of new tokens (positions from the prompt's length on) later. Negative positions count from the prompt's end.
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
}

/**
 * Continues prompts with a KV cache; several at once share every step. Greedy unless a temperature is given. Throws
 * SiteError for an edit whose position was never computed, because the answer ended before it.
 */
export async function generate(
  model: LanguageModel,
  prompts: readonly Prompt[],
  { maxNewTokens, edits = [], stopIds = model.endIds, onToken, ...sampling }: GenerateOptions,
): Promise<Generated[]> {
  const { network, tokenizer } = model;
  const { device } = network;
  for (const prompt of prompts) model.check(prompt);
  const scope = device.openScope();
  const stops = new Set(stopIds);
  const answers: number[][] = prompts.map(() => []);
  const streams = prompts.map(() => new TextStream(tokenizer));
  try {
    // The last new token is never fed back, so its position is not computed.
    const resolved = scope.enter(() =>
      resolveEdits(edits, model.sites, device, batchOf(prompts), maxNewTokens - 1),
    );
    const watcher = new Watcher(resolved, {});
    const options = { maxNewTokens, stopIds: stops, sampler: createSampler(sampling), visitor: watcher };
    for await (const { sequences, ids } of generateTokens(network, prompts, options)) {
      sequences.forEach((sequence, i) => {
        const id = ids[i]!;
        answers[sequence]!.push(id);
        const last = stops.has(id) || answers[sequence]!.length === maxNewTokens;
        onToken?.({ prompt: sequence, id, text: streams[sequence]!.next(id, last) });
      });
    }
    watcher.finish();
  } finally {
    scope.dispose();
  }
  return answers.map((ids) => ({
    ids,
    text: tokenizer.decode(ids, { skipSpecial: true }),
    ended: ids.length > 0 && stops.has(ids.at(-1)!),
  }));
}
