import { itemsOf, picturedItemsOf, type Split, type Task, type TaskItem, XpatchError } from "xpatch";
import { sample } from "../statistics/random.ts";
import type { LabOptions } from "./setting.ts";

/** The splits that experiments use: to choose by, and to report on. */
export type AskedSplit = Exclude<Split, "train">;

/** The tasks of a run, and which of their items it asks about: what rows of a cell belong to. */
export class AskedTasks {
  readonly #tasks: readonly Task[];
  readonly #options: Pick<LabOptions, "validationItems" | "testItems">;
  readonly #isPictured: (task: Task) => boolean;

  /** @param isPictured whether a task is asked about by pictures, and so only items that have one */
  constructor(
    tasks: readonly Task[],
    options: Pick<LabOptions, "validationItems" | "testItems">,
    isPictured: (task: Task) => boolean,
  ) {
    this.#tasks = tasks;
    this.#options = options;
    this.#isPictured = isPictured;
  }

  task(name: string): Task {
    const task = this.#tasks.find((t) => t.name === name);
    if (task) return task;
    throw new XpatchError(
      `there is no task ${name}; expected one of ${this.#tasks.map((t) => t.name).join(", ")}`,
    );
  }

  /** Where items are drawn from: where there are pictures, only items with one. */
  pool(task: Task, split: AskedSplit): TaskItem[] {
    return this.#isPictured(task) ? picturedItemsOf(task, split) : itemsOf(task, split);
  }

  /** The items of a split that are asked about, as many as the options say. */
  items(task: Task, split: AskedSplit, pool: readonly TaskItem[] = this.pool(task, split)): TaskItem[] {
    const { validationItems, testItems } = this.#options;
    const most = split === "validation" ? validationItems : testItems;
    return most === undefined ? [...pool] : sample(pool, most);
  }
}

/** What says which items are asked about: a lab, or {@link AskedTasks} alone. */
export type AskedItemsOf = Pick<AskedTasks, "task" | "pool" | "items">;

/** Whether both splits that are asked about have items with pictures. */
export function hasPictures({ items }: Task): boolean {
  return (["validation", "test"] as const).every((split) =>
    items.some((item) => item.split === split && item.image !== undefined),
  );
}
