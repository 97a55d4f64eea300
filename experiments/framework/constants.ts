import { isCorrect, type Task, type TaskItem } from "xpatch";
import type { Hits } from "../statistics/accuracy.ts";
import { type Scoring, taskHits } from "./scored.ts";

/** The items of a task that were asked about, and what was answered. */
export interface AskedTask {
  readonly task: Task;
  readonly items: readonly TaskItem[];
  readonly answers?: readonly string[];
}

export interface ConstantAnswers {
  /** The answer that is right for most of all the task's items: what is known before any is asked about. */
  readonly frequent: Hits;
  /** The answer that is right for most of the items asked about, those given among them: flattered by the choice. */
  readonly constant: Hits;
}

/** Whether an answer is right, as `isCorrect` and `isWholeAnswer` say it. */
export type Judge = (
  answer: string,
  outputs: readonly string[],
  options: { readonly ignoreCase: boolean },
) => boolean;

/** How always giving the same answer would do, with the best answer for each task: what an accuracy has to be above. */
export function constantAnswers(
  asked: readonly AskedTask[],
  { caseSensitive = false }: Scoring,
  judge: Judge = isCorrect,
): ConstantAnswers {
  const judged: Judged = { judge, caseSensitive };
  const hits = (answerOf: (one: AskedTask) => string): Hits =>
    asked.map((one) => taskHits(one.items, [hitsOf(answerOf(one), one.items, judged)]));
  return {
    frequent: hits(({ task }) => frequentAnswer(task, judged)),
    constant: hits(({ items, answers = [] }) => best([...outputsOf(items), ...answers], items, judged)),
  };
}

interface Judged {
  readonly judge: Judge;
  readonly caseSensitive: boolean;
}

/** Where case counts, and where it does not. */
const frequent = {
  strict: new WeakMap<Judge, WeakMap<Task, string>>(),
  loose: new WeakMap<Judge, WeakMap<Task, string>>(),
};

function frequentAnswer(task: Task, judged: Judged): string {
  const byJudge = judged.caseSensitive ? frequent.strict : frequent.loose;
  const answers = byJudge.get(judged.judge) ?? new WeakMap<Task, string>();
  byJudge.set(judged.judge, answers);
  const known = answers.get(task) ?? best(outputsOf(task.items), task.items, judged);
  answers.set(task, known);
  return known;
}

/** Whole outputs and their first words, which is what an answer of one token can amount to. */
function outputsOf(items: readonly TaskItem[]): string[] {
  return items.flatMap(({ outputs }) => outputs.flatMap((output) => [output, output.split(/\s/)[0]!]));
}

/** Of equals the first. */
function best(candidates: readonly string[], items: readonly TaskItem[], judged: Judged): string {
  const rights = (answer: string) =>
    [...hitsOf(answer, items, judged).hits].filter((hit) => hit === "1").length;
  const all = [...new Set(candidates)].map((answer) => ({ answer, right: rights(answer) }));
  return all.reduce((a, b) => (b.right > a.right ? b : a)).answer;
}

function hitsOf(
  answer: string,
  items: readonly TaskItem[],
  { judge, caseSensitive }: Judged,
): { hits: string } {
  const right = items.map(({ outputs }) => judge(answer, outputs, { ignoreCase: !caseSensitive }));
  return { hits: right.map((one) => (one ? "1" : "0")).join("") };
}
