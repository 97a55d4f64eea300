import { type Modality, relatedTasks, type Task, type TaskItem, type Tokenizer } from "xpatch";
import type { AskedItemsOf } from "../framework/asked-tasks.ts";
import type { AskedSplit, Lab } from "../framework/lab.ts";
import { type Answered, answered, type Scoring } from "../framework/scored.ts";
import { tasksWith } from "./layer-sweep.ts";

/** Two tasks that ask about the same things: the first one's questions are asked. */
export interface Pair {
  readonly task: string;
  readonly other: string;
}

/** Each task with the one that shares most of its inputs, if any does in both splits. */
export function pairsOf(lab: Lab, query: Modality): Pair[] {
  const candidates = tasksWith(lab, { specification: "text", query });
  return candidates.flatMap((task) => {
    const asked = (["validation", "test"] as const).flatMap((split) => lab.items(task, split));
    const related = relatedTasks(task.name, asked, candidates, candidates.length);
    const other = related.find((candidate) =>
      (["validation", "test"] as const).every(
        (split) => sharedBy(lab, task, candidate, split).own.length > 0,
      ),
    );
    return other ? [{ task: task.name, other: other.name }] : [];
  });
}

/** The pairs that go into means: of two tasks that do, or all where there is no such pair. */
export function pairsInMeans(lab: Lab, query: Modality): Pair[] {
  const pairs = pairsOf(lab, query);
  const names = lab.tasksInMeans.map(({ name }) => name);
  const inside = pairs.filter(({ task, other }) => names.includes(task) && names.includes(other));
  return inside.length > 0 ? inside : pairs;
}

export function nameOf({ task, other }: Pair): string {
  return `${task} / ${other}`;
}

/** The items of a split that both tasks have, as each of them answers, and their places among `lab.items(task, split)`. */
export interface SharedItems {
  readonly indices: readonly number[];
  readonly own: readonly TaskItem[];
  readonly other: readonly TaskItem[];
}

/** Why an experiment with pairs cannot be done, if there is none. */
export function withoutPairs(lab: Lab, query: Modality): string | undefined {
  return pairsOf(lab, query).length > 0
    ? undefined
    : "it takes two tasks that ask about the same things, in validation and in test";
}

export function sharedItems(lab: AskedItemsOf, { task, other }: Pair, split: AskedSplit): SharedItems {
  return sharedBy(lab, lab.task(task), lab.task(other), split);
}

function sharedBy(lab: AskedItemsOf, task: Task, other: Task, split: AskedSplit): SharedItems {
  const byInput = new Map(other.items.map((item) => [item.input, item]));
  const shared = lab.items(task, split).flatMap((own, index) => {
    const match = byInput.get(own.input);
    return match ? [{ index, own, other: match }] : [];
  });
  return {
    indices: shared.map(({ index }) => index),
    own: shared.map(({ own }) => own),
    other: shared.map((row) => row.other),
  };
}

/** The same answers by the outputs of both tasks. */
export interface ScoredTwice {
  readonly own: Answered;
  readonly other: Answered;
}

export function scoredTwice(
  tokenizer: Tokenizer,
  { own, other }: SharedItems,
  ids: readonly number[],
  scoring: Scoring,
): ScoredTwice {
  return { own: answered(tokenizer, own, ids, scoring), other: answered(tokenizer, other, ids, scoring) };
}
