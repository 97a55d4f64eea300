import { XpatchError } from "../errors.ts";
import type { Tokenizer } from "../model/prompt/tokenizer.ts";
import { isCorrect, type JudgedAnswer, normaliseAnswer, type ScoreOptions, tokenAnswer } from "./correct.ts";
import type { TaskItem } from "./task.ts";

/** How many answers are right, beside what a model that knows nothing would get. */
export interface Score {
  /** How many answers are right. */
  readonly correct: number;
  /** How many there are. */
  readonly total: number;
  /** `correct / total`, 0 to 1. */
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

/** Scores `answers[i]` as the answer to `items[i]`. Throws XpatchError when they differ in number or there are none. */
export function scoreAnswers(
  items: readonly TaskItem[],
  answers: readonly string[],
  options: ScoreOptions = {},
): Score {
  checkNumber(items, answers);
  const { ignoreCase = true } = options;
  return scoreBy(
    items,
    answers,
    (answer) => ({
      key: normaliseAnswer(answer, ignoreCase),
      isCorrect: (outputs) => isCorrect(answer, outputs, options),
    }),
    options,
  );
}

function scoreBy<A>(
  items: readonly TaskItem[],
  answers: readonly A[],
  judge: (answer: A) => JudgedAnswer,
  options: ScoreOptions,
): Score {
  const judged = new Map(answers.map((answer) => [answer, judge(answer)]));
  const correct = items.filter(({ outputs }, i) => judged.get(answers[i]!)!.isCorrect(outputs)).length;
  return {
    correct,
    total: items.length,
    accuracy: correct / items.length,
    distinct: new Set([...judged.values()].map(({ key }) => key)).size,
    majority: majorityBaseline(items, options),
    constant: bestConstant(items, judged.values()),
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
  options: ScoreOptions = {},
): ScoredAnswers {
  checkNumber(items, ids);
  const score = scoreBy(items, ids, (id) => tokenAnswer(tokenizer, [id], options), options);
  return { ...score, answers: ids.map((id) => tokenizer.decode([id], { skipSpecial: true })) };
}

function checkNumber(items: readonly TaskItem[], answers: readonly unknown[]): void {
  if (items.length === answers.length && items.length > 0) return;
  throw new XpatchError(`expected an answer for each item, found ${answers.length} for ${items.length}`);
}

/**
 * The accuracy of always giving the most frequent output, or the first word of one (which is what an answer of one token
 * can amount to).
 */
export function majorityBaseline(items: readonly TaskItem[], options: ScoreOptions = {}): number {
  const candidates = new Set(items.flatMap(({ outputs }) => outputs.flatMap((o) => [o, o.split(/\s/)[0]!])));
  const judged = Array.from(candidates, (answer) => ({
    isCorrect: (outputs: readonly string[]) => isCorrect(answer, outputs, options),
  }));
  return bestConstant(items, judged);
}

function bestConstant(
  items: readonly TaskItem[],
  answers: Iterable<Pick<JudgedAnswer, "isCorrect">>,
): number {
  const accuracies = Array.from(
    answers,
    (answer) => items.filter(({ outputs }) => answer.isCorrect(outputs)).length / items.length,
  );
  return Math.max(...accuracies);
}
