import type { Task, TaskItem } from "xpatch";
import {
  type EnsembleControl,
  type EnsembleTestResult,
  ensembleTest,
  instructedTasks,
} from "../cells/ensembles.ts";
import type { Setup } from "../cells/layer-sweep.ts";
import { type Noise, noisyTest } from "../cells/noisy-instructions.ts";
import type { Lab } from "../framework/lab.ts";
import { widestQuery } from "../framework/prompts.ts";
import { type Answered, taskHits } from "../framework/scored.ts";
import type { Hits } from "../statistics/accuracy.ts";

/* What the cells of the experiment on instructions say: answers by method, number of prompts and noise. */

export const METHODS = ["examples", "instruction", "ensemble"] as const;

export type Method = (typeof METHODS)[number];

export function instructed(lab: Lab): Setup {
  return { specification: "instruction", query: widestQuery(lab) };
}

export interface Tested {
  readonly task: Task;
  readonly items: readonly TaskItem[];
  readonly result: EnsembleTestResult;
}

export function resultsOf(lab: Lab, tasks: readonly Task[]): Tested[] {
  const query = widestQuery(lab);
  return tasks.map((task) => ({
    task,
    items: lab.items(task, "test"),
    result: lab.result(ensembleTest({ query, task: task.name })),
  }));
}

/** The numbers of prompts that all tasks have. */
export function countsOf([first, ...others]: readonly Tested[]): number[] {
  return first!.result.counts.filter((count) => others.every(({ result }) => result.counts.includes(count)));
}

export function answersOf(result: EnsembleTestResult, method: Method, count: number): readonly Answered[] {
  return method === "instruction" ? [result.instruction] : result[method][result.counts.indexOf(count)]!;
}

export function hitsOf(tested: readonly Tested[], method: Method, count: number): Hits {
  return tested.map(({ items, result }) => taskHits(items, answersOf(result, method, count)));
}

export function noContextOf(tested: readonly Tested[]): Hits {
  return tested.map(({ items, result }) => taskHits(items, [result.noContext]));
}

/** With the most prompts; undefined where a task has no such control. */
export function controlOf(tested: readonly Tested[], control: EnsembleControl): Hits | undefined {
  const answers = tested.map(({ result }) => result.controls[control]);
  return answers.every((list) => list !== undefined)
    ? tested.map(({ items }, t) => taskHits(items, answers[t]!))
    : undefined;
}

/** With the most prompts of each task. */
export function fullEnsemble(tested: readonly Tested[]): Hits {
  return tested.map(({ items, result }) => taskHits(items, result.ensemble.at(-1)!));
}

/** Right and wrong answers under an instruction with noise, by variant; undefined where a task has no such variants. */
export function noisyHits(lab: Lab, noise: Noise): Hits | undefined {
  const query = widestQuery(lab);
  const tasks = inMeans(lab);
  const answers = tasks.map(({ name: task }) => lab.result(noisyTest({ query, task })).patched[noise]);
  return answers.every((variants) => variants.length > 0)
    ? tasks.map((task, t) => taskHits(lab.items(task, "test"), answers[t]!))
    : undefined;
}

export function inMeans(lab: Lab): Task[] {
  return instructedTasks(lab, widestQuery(lab), lab.tasksInMeans);
}
