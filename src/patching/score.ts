import type { Tokenizer } from "../model/tokenizer.ts";
import { XpatchError } from "../tensor/errors.ts";
import type { SweepResult } from "./sweep.ts";
import type { TaskItem } from "./task.ts";

export interface ScoreOptions {
  /** Whether upper and lower case count as the same. Default true. */
  readonly ignoreCase?: boolean;
}

/** How many answers are right, beside what a model that knows nothing would get. */
export interface Score {
  readonly correct: number;
  readonly total: number;
  readonly accuracy: number;
  /** Different answers given. One or two of them mean a model stuck on a word, whatever the accuracy says. */
  readonly distinct: number;
  /** The accuracy of always giving the most frequent output (or its first word). */
  readonly majority: number;
  /**
   * What the best of the answers given would score, were it given to every item. The rule lets "S" stand for all words
   * that begin with it, so this can be above `majority`; an accuracy no better than it is that of a constant.
   */
  readonly constant: number;
}

/**
 * Whether an answer is right by the rule of Luo et al. 2025: it starts with a right output, or such an output starts with
 * it (an answer of one token is often only the beginning of a word). White space around both is ignored; an empty answer
 * is wrong.
 */
export function isCorrect(
  answer: string,
  outputs: readonly string[],
  { ignoreCase = true }: ScoreOptions = {},
): boolean {
  const given = normalise(answer, ignoreCase);
  if (given === "") return false;
  return outputs.some((output) => {
    const right = normalise(output, ignoreCase);
    return given.startsWith(right) || right.startsWith(given);
  });
}

/** Scores `answers[i]` as the answer to `items[i]`. Throws XpatchError when they differ in number or there are none. */
export function scoreAnswers(
  items: readonly TaskItem[],
  answers: readonly string[],
  options: ScoreOptions = {},
): Score {
  if (items.length !== answers.length || items.length === 0) {
    throw new XpatchError(`expected an answer for each item, found ${answers.length} for ${items.length}`);
  }
  const { ignoreCase = true } = options;
  const correct = items.filter((item, i) => isCorrect(answers[i]!, item.outputs, options)).length;
  const distinct = new Set(answers.map((answer) => normalise(answer, ignoreCase)));
  return {
    correct,
    total: items.length,
    accuracy: correct / items.length,
    distinct: distinct.size,
    majority: majorityBaseline(items, options),
    constant: bestConstant(items, distinct, options),
  };
}

/** A score and the answers that it counts, in the order of the items. */
export interface ScoredAnswers extends Score {
  readonly answers: readonly string[];
}

/** Scores the token `ids[i]` as the answer to `items[i]`. Throws as {@link scoreAnswers} does. */
export function scoreTokens(
  tokenizer: Tokenizer,
  items: readonly TaskItem[],
  ids: readonly number[],
): ScoredAnswers {
  const answers = ids.map((id) => tokenizer.decode([id], { skipSpecial: true }));
  return { ...scoreAnswers(items, answers), answers };
}

export interface ScoredSweep {
  readonly layers: readonly ({ readonly layer: number } & ScoredAnswers)[];
  /** The layer with the highest accuracy; of equals the first. */
  readonly best: number;
}

/** The score of each layer of a sweep over queries about `items`. */
export function scoreSweep(
  tokenizer: Tokenizer,
  items: readonly TaskItem[],
  { layers, patched }: Pick<SweepResult, "layers" | "patched">,
): ScoredSweep {
  const scored = layers.map((layer, l) => ({ layer, ...scoreTokens(tokenizer, items, patched[l]!) }));
  const best = scored.reduce((a, b) => (b.correct > a.correct ? b : a)).layer;
  return { layers: scored, best };
}

/**
 * The accuracy of always giving the most frequent output, or the first word of one (which is what an answer of one token
 * can amount to).
 */
export function majorityBaseline(items: readonly TaskItem[], options: ScoreOptions = {}): number {
  const candidates = new Set(items.flatMap(({ outputs }) => outputs.flatMap((o) => [o, o.split(/\s/)[0]!])));
  return bestConstant(items, candidates, options);
}

function bestConstant(items: readonly TaskItem[], answers: Iterable<string>, options: ScoreOptions): number {
  const accuracies = Array.from(
    answers,
    (answer) => items.filter(({ outputs }) => isCorrect(answer, outputs, options)).length / items.length,
  );
  return Math.max(...accuracies);
}

function normalise(text: string, ignoreCase: boolean): string {
  const trimmed = text.normalize("NFC").trim();
  return ignoreCase ? trimmed.toLowerCase() : trimmed;
}
