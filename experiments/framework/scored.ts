import { isCorrectTokens, type Score, scoreTokens, type TaskItem, type Tokenizer } from "xpatch";
import type { TaskHits } from "../statistics/accuracy.ts";
import { mean } from "../statistics/resample.ts";
import type { LabOptions } from "./setting.ts";

/** Answers of one token to items, by the rule of Luo et al. 2025, with what a constant answer would get. */
export interface Scored extends Pick<Score, "accuracy" | "distinct" | "majority" | "constant"> {
  /** A character an item: `1` where the answer is right. */
  readonly hits: string;
  /** The same for answers that name the item, by the same rule with its input in place of its outputs. */
  readonly named: string;
}

export interface Answered extends Scored {
  readonly answers: readonly string[];
}

/** Whether case counts. */
export type Scoring = Pick<LabOptions, "caseSensitive">;

export function scored(
  tokenizer: Tokenizer,
  items: readonly TaskItem[],
  ids: readonly number[],
  scoring: Scoring,
): Scored {
  const { answers: _, ...found } = answered(tokenizer, items, ids, scoring);
  return found;
}

export function answered(
  tokenizer: Tokenizer,
  items: readonly TaskItem[],
  ids: readonly number[],
  { caseSensitive = false }: Scoring,
): Answered {
  const options = { ignoreCase: !caseSensitive };
  const { accuracy, distinct, majority, constant, answers } = scoreTokens(tokenizer, items, ids, options);
  const marks = (textsOf: (item: TaskItem) => readonly string[]) =>
    items
      .map((item, i) => (isCorrectTokens(tokenizer, [ids[i]!], textsOf(item), options) ? "1" : "0"))
      .join("");
  const hits = marks(({ outputs }) => outputs);
  const named = marks(({ input }) => [input]);
  return { accuracy, distinct, majority, constant, hits, named, answers };
}

/** What stands beside an accuracy over tasks: the mean majority baseline, and the distinct answers of each task. */
export function beside(scores: readonly Scored[]): { majority: number; distinct: string } {
  return {
    majority: mean(scores.map(({ majority }) => majority)),
    distinct: scores.map(({ distinct }) => distinct).join(", "),
  };
}

/** Right and wrong answers to a task's items, by seed. */
export function taskHits(items: readonly TaskItem[], seeds: readonly Pick<Scored, "hits">[]): TaskHits {
  return { inputs: items.map(({ input }) => input), seeds: seeds.map(({ hits }) => hits) };
}
