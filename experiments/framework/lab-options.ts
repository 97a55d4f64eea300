import { SPACED_TEMPLATE, type Task, XpatchError } from "xpatch";
import { nearestHint } from "#src/nearest";
import { PAPER_TASKS } from "../paper.ts";
import { PAPER_PROTOCOL } from "../protocol.ts";
import type { LabOptions } from "./setting.ts";

/** What a user may give, on the command line or in the plan of a grid; what stands in {@link OPTION_DEFAULTS} has a default. */
export interface GivenOptions extends Omit<LabOptions, "promptSeeds" | "stack" | "caseSensitive"> {
  readonly promptSeeds?: number;
  readonly stack: "decoder" | "encoder";
}

export const OPTION_DEFAULTS = {
  seeds: 3,
  shots: 5,
  template: SPACED_TEMPLATE,
  layerBy: "mean",
  outsideMeans: ["food-flavor"],
  stack: "decoder",
} as const satisfies Partial<GivenOptions>;

/** What the paper's protocol sets, so that it cannot be given beside it. */
export const SET_BY_PROTOCOL = [
  "seeds",
  "promptSeeds",
  "shots",
  "template",
  "pictureWidth",
  "layerBy",
  "outsideMeans",
] as const satisfies readonly (keyof GivenOptions)[];

export function labOptions(given: GivenOptions): LabOptions {
  const {
    seeds,
    promptSeeds = seeds,
    shots,
    template,
    validationItems,
    testItems,
    pictureWidth,
    layerBy,
    outsideMeans,
    specifications,
    trainTasks,
    trainSeeds,
    trainSteps,
    protocol,
  } = given;
  const training = { trainTasks, trainSeeds, trainSteps };
  const narrowed = {
    ...(given.stack === "encoder" && { stack: given.stack }),
    ...(specifications && { specifications }),
  };
  if (protocol === "paper")
    return { ...PAPER_PROTOCOL, validationItems, testItems, ...narrowed, ...training };
  return {
    seeds,
    promptSeeds: Math.min(promptSeeds, seeds),
    shots,
    template,
    validationItems,
    testItems,
    pictureWidth,
    layerBy,
    outsideMeans,
    ...narrowed,
    ...training,
  };
}

/**
 * Throws XpatchError for tasks and options that do not go together: mistakes that would show only after models have been loaded,
 * or not at all.
 *
 * @param named - How a message calls an option; that of the tasks is `tasks`.
 */
export function checkTasks(
  tasks: readonly Task[],
  { shots, outsideMeans }: LabOptions,
  named: (option: "tasks" | "shots" | "outside-means") => string = (option) => `--${option}`,
): void {
  const names = tasks.map(({ name }) => name);
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined) throw new XpatchError(`${named("tasks")}: two of the tasks are called ${twice}`);
  const unknown = outsideMeans.find((name) => ![...names, ...PAPER_TASKS].includes(name));
  if (unknown !== undefined) {
    throw new XpatchError(
      `${named("outside-means")}: there is no task ${unknown}; expected some of ${names.join(", ")}${nearestHint(unknown, names)}`,
    );
  }
  for (const task of tasks) {
    for (const split of ["validation", "test"] as const) {
      const pool = task.items.filter((item) => item.split === split);
      if (pool.length <= shots) {
        throw new XpatchError(
          `${named("shots")}: task ${task.name} has ${pool.length} ${split} items, too few to ask about one behind ${shots} others`,
        );
      }
    }
  }
}
