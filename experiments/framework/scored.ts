import { isCorrect, type Score, scoreAnswers, type TaskItem } from "xpatch";
import { mean } from "../statistics/resample.ts";
import type { LabOptions } from "./setting.ts";

/** Answers of one token to items, by the rule of Luo et al. 2025, with what a constant answer would get. */
export interface Scored extends Pick<Score, "accuracy" | "distinct" | "majority" | "constant"> {
  /** A character an item: `1` where the answer is right. */
  readonly hits: string;
}

export interface Answered extends Scored {
  readonly answers: readonly string[];
}

/** Whether case counts. */
export type Scoring = Pick<LabOptions, "caseSensitive">;

export function scored(
  items: readonly TaskItem[],
  answers: readonly string[],
  { caseSensitive = false }: Scoring,
): Scored {
  const options = { ignoreCase: !caseSensitive };
  const { accuracy, distinct, majority, constant } = scoreAnswers(items, answers, options);
  const hits = items.map(({ outputs }, i) => (isCorrect(answers[i]!, outputs, options) ? "1" : "0")).join("");
  return { accuracy, distinct, majority, constant, hits };
}

export function answered(items: readonly TaskItem[], answers: readonly string[], scoring: Scoring): Answered {
  return { ...scored(items, answers, scoring), answers };
}

/** What stands beside an accuracy over tasks: the mean majority baseline, and the distinct answers of each task. */
export function beside(scores: readonly Scored[]): { majority: number; distinct: string } {
  return {
    majority: mean(scores.map(({ majority }) => majority)),
    distinct: scores.map(({ distinct }) => distinct).join(", "),
  };
}
