import type { Modality, Task } from "xpatch";
import {
  ARMS,
  type ArmName,
  type TrainedResult,
  trained,
  type UntrainedResult,
  untrained,
} from "../cells/fine-tuning.ts";
import { tasksWith } from "../cells/layer-sweep.ts";
import { trainItems } from "../cells/tuning-vectors.ts";
import type { AskedTask } from "../framework/constants.ts";
import type { Lab } from "../framework/lab.ts";
import { seedsOf } from "../framework/prompts.ts";
import { type Scored, taskHits } from "../framework/scored.ts";
import type { Hits } from "../statistics/accuracy.ts";

/* What the cells of the experiment on fine-tuning say: answers by arm, number of labelled items and step. */

/** What the experiment does unless the user says otherwise: about an hour for the model that comes along. */
const DEFAULTS = { tasks: 3, seeds: 2, steps: 24 };

/** Labelled items that are trained on; of the last, as many as a task has. */
const SIZES = [1, 4, 16, 64];

/** The number of labelled items that the verdict is of. */
export const FEW = 4;

export const SETUP = { specification: "text", query: "text" } as const;

export const UNTRAINED = {
  noContext: "no context",
  patch: "task vector patched in, untrained",
  added: "task vector added, untrained",
  random: "random vector added, untrained",
} as const satisfies Record<Exclude<keyof UntrainedResult, "layer">, string>;

/** Tasks to train on: of things as different as there are. */
export function tunedTasks(lab: Lab): Task[] {
  // A task vector of one labelled item takes another question.
  const able = (tasks: readonly Task[]) =>
    tasksWith(lab, SETUP, tasks).filter(
      (task) => new Set(trainItems(task).map(({ input }) => input)).size > 1,
    );
  const inside = able(lab.tasksInMeans);
  const tasks = inside.length > 0 ? inside : able(lab.tasks);
  const alike = (one: Task, other: Task) => {
    const inputs = new Set(one.items.map(({ input }) => input));
    return other.items.some(({ input }) => inputs.has(input));
  };
  const apart = tasks.filter((task, i) => !tasks.slice(0, i).some((before) => alike(task, before)));
  const rest = tasks.filter((task) => !apart.includes(task));
  return [...apart, ...rest].slice(0, lab.options.trainTasks ?? DEFAULTS.tasks);
}

/** Numbers of labelled items, up to the first that is all of every task. */
export function sizesOf(lab: Lab): number[] {
  const most = Math.max(...tunedTasks(lab).map((task) => trainItems(task).length));
  return SIZES.filter((_, i) => i === 0 || SIZES[i - 1]! < most);
}

export function stepsOf({ options }: Lab): number {
  return options.trainSteps ?? DEFAULTS.steps;
}

export function tuningSeeds(lab: Lab): number[] {
  return seedsOf(lab, "text", Math.min(lab.options.seeds, lab.options.trainSeeds ?? DEFAULTS.seeds));
}

export function armNames(): ArmName[] {
  return Object.keys(ARMS) as ArmName[];
}

/** Queries that every task can be asked by. */
export function queriesOf(lab: Lab): Modality[] {
  return tunedTasks(lab).every((task) => lab.isPictured(task)) ? ["text", "image"] : ["text"];
}

/** Answers of each task and seed to its test items. */
function hitsOf(lab: Lab, pick: (task: string, seed: number) => Scored, tasks = tunedTasks(lab)): Hits {
  return tasks.map((task) =>
    taskHits(
      lab.items(task, "test"),
      tuningSeeds(lab).map((seed) => pick(task.name, seed)),
    ),
  );
}

export function resultOf(
  lab: Lab,
  arm: ArmName,
  examples: number,
  task: string,
  seed: number,
): TrainedResult {
  return lab.result(trained({ task, examples, seed, arm, steps: stepsOf(lab) }));
}

export function endHits(
  lab: Lab,
  arm: ArmName,
  examples: number,
  query: Modality = "text",
  tasks?: Task[],
): Hits {
  return hitsOf(lab, (task, seed) => resultOf(lab, arm, examples, task, seed).end[query]!, tasks);
}

export function stepHits(lab: Lab, arm: ArmName, examples: number, step: number): Hits {
  return hitsOf(lab, (task, seed) => resultOf(lab, arm, examples, task, seed).bySteps[step]!.text);
}

export function untrainedHits(
  lab: Lab,
  what: keyof typeof UNTRAINED,
  examples: number,
  query: Modality = "text",
): Hits {
  return hitsOf(lab, (task, seed) => lab.result(untrained({ task, examples, seed }))[what][query]!);
}

/** What was asked about, and answered by the arms of the verdict: what constant answers are chosen from. */
export function askedOf(lab: Lab, query: Modality = "text"): AskedTask[] {
  return tunedTasks(lab).map((task) => ({
    task,
    items: lab.items(task, "test"),
    answers: tuningSeeds(lab).flatMap((seed) =>
      armNames().flatMap((arm) => resultOf(lab, arm, FEW, task.name, seed).end[query]!.answers),
    ),
  }));
}
