import { isCorrect, type Task, type TaskItem } from "xpatch";
import type { Hits } from "../statistics/accuracy.ts";
import { taskHits } from "./scored.ts";

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

/** How always giving the same answer would do, with the best answer for each task: what an accuracy has to be above. */
export function constantAnswers(asked: readonly AskedTask[]): ConstantAnswers {
  const hits = (answerOf: (one: AskedTask) => string): Hits =>
    asked.map((one) => taskHits(one.items, [hitsOf(answerOf(one), one.items)]));
  return {
    frequent: hits(({ task }) => frequentAnswer(task)),
    constant: hits(({ items, answers = [] }) => best([...outputsOf(items), ...answers], items)),
  };
}

const frequent = new WeakMap<Task, string>();

function frequentAnswer(task: Task): string {
  const known = frequent.get(task) ?? best(outputsOf(task.items), task.items);
  frequent.set(task, known);
  return known;
}

/** Whole outputs and their first words, which is what an answer of one token can amount to. */
function outputsOf(items: readonly TaskItem[]): string[] {
  return items.flatMap(({ outputs }) => outputs.flatMap((output) => [output, output.split(/\s/)[0]!]));
}

/** Of equals the first. */
function best(candidates: readonly string[], items: readonly TaskItem[]): string {
  const rights = (answer: string) => [...hitsOf(answer, items).hits].filter((hit) => hit === "1").length;
  const all = [...new Set(candidates)].map((answer) => ({ answer, right: rights(answer) }));
  return all.reduce((a, b) => (b.right > a.right ? b : a)).answer;
}

function hitsOf(answer: string, items: readonly TaskItem[]): { hits: string } {
  return { hits: items.map(({ outputs }) => (isCorrect(answer, outputs) ? "1" : "0")).join("") };
}
