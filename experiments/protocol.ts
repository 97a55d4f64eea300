import { PAPER_TEMPLATE, type Task, XpatchError } from "xpatch";
import type { LabOptions } from "./framework/setting.ts";
import { PAPER_TASKS } from "./paper.ts";

/** All that the authors' program fixes and a lab can choose. */
export const PAPER_PROTOCOL = {
  protocol: "paper",
  seeds: 3,
  promptSeeds: 3,
  shots: 5,
  template: PAPER_TEMPLATE,
  pictureWidth: 224,
  layerBy: "mean",
  outsideMeans: [],
  caseSensitive: true,
} as const satisfies Partial<LabOptions>;

/**
 * The tasks as the authors have them: with one right output for each item, the first. Throws XpatchError for others than the
 * paper's six, whose mean would not be the paper's.
 */
export function paperTasks(tasks: readonly Task[]): Task[] {
  const names = tasks.map(({ name }) => name).sort();
  if (names.join() !== [...PAPER_TASKS].sort().join()) {
    throw new XpatchError(
      `the paper's protocol takes the tasks ${PAPER_TASKS.join(", ")}; found ${names.join(", ")}`,
    );
  }
  return tasks.map((task) => ({
    ...task,
    items: task.items.map((item) => ({ ...item, outputs: item.outputs.slice(0, 1) })),
  }));
}
