import { type Command, Option } from "commander";
import { SPACED_TEMPLATE } from "../patching/few-shot.ts";
import { SPECIFICATION_KINDS, type SpecificationKind } from "../patching/specification.ts";
import { itemsOf, SPLITS, type Split, type TaskItem } from "../patching/task.ts";
import { escapedText } from "./arguments.ts";
import { readTask, TASK_OPTION } from "./task-file.ts";

export interface TaskArguments {
  readonly task?: string;
  readonly split: Split;
  readonly template: string;
}

/** Adds --task, --split and --template. */
export function addTaskOptions(command: Command, split: Split): Command {
  const shown = SPACED_TEMPLATE.replaceAll("\n", "\\n");
  return command
    .option(...TASK_OPTION)
    .addOption(new Option("--split <split>", "which of its items").choices(SPLITS).default(split))
    .addOption(
      new Option("--template <text>", "one example; the query is what comes before {y}")
        .argParser(escapedText)
        .default(SPACED_TEMPLATE, shown),
    );
}

/** What --spec takes: how the task is given. */
export function specOption(fallback: SpecificationKind = "text"): Option {
  return new Option(
    "--spec <kind>",
    "what tells the task: examples with text or pictures, or its instruction",
  )
    .choices(SPECIFICATION_KINDS)
    .default(fallback);
}

/** The items of one split of a task. Throws XpatchError when the task is unknown or damaged, or has none. */
export async function readItems(task: string, split: Split): Promise<TaskItem[]> {
  return itemsOf(await readTask(task), split);
}
