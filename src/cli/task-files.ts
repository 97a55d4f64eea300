import { readdir, readFile } from "node:fs/promises";
import { basename } from "node:path";
import { type Command, Option } from "commander";
import { SPACED_TEMPLATE } from "../patching/few-shot.ts";
import { itemsOf, parseTask, SPLITS, type Split, type Task, type TaskItem } from "../patching/task.ts";
import { XpatchError } from "../tensor/errors.ts";
import { escapedText } from "./arguments.ts";

/** The tasks that come with xpatch, seen from src/cli and from dist/cli. */
const SHIPPED = new URL("../../tasks/", import.meta.url);

export interface TaskArguments {
  readonly task?: string;
  readonly split: Split;
  readonly template: string;
}

/** Adds --task, --split and --template. */
export function addTaskOptions(command: Command, split: Split): Command {
  const shown = SPACED_TEMPLATE.replaceAll("\n", "\\n");
  return command
    .option("--task <task>", "a task file, or the name of a task that comes with xpatch")
    .addOption(new Option("--split <split>", "which of its items").choices(SPLITS).default(split))
    .addOption(
      new Option("--template <text>", "one example; the query is what comes before {y}")
        .argParser(escapedText)
        .default(SPACED_TEMPLATE, shown),
    );
}

/** A task by the path of its file (ending in .json) or by its name. Throws XpatchError when it is damaged or unknown. */
export async function readTask(ref: string): Promise<Task> {
  if (/\.json$/i.test(ref)) return parseTask(await readFile(ref, "utf8"), ref);
  const names = (await readdir(SHIPPED)).map((file) => basename(file, ".json"));
  if (!names.includes(ref)) {
    throw new XpatchError(`there is no task "${ref}"; expected a .json file or one of ${names.join(", ")}`);
  }
  return parseTask(await readFile(new URL(`${ref}.json`, SHIPPED), "utf8"), ref);
}

/** The items of one split of a task. */
export async function readItems({ task, split }: { task: string; split: Split }): Promise<TaskItem[]> {
  return itemsOf(await readTask(task), split);
}
