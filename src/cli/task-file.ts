import { readdir, readFile } from "node:fs/promises";
import { parseTask, type Task } from "../patching/task.ts";
import { XpatchError } from "../tensor/errors.ts";

const SHIPPED = new URL("../../tasks/", import.meta.url);

/** What --task takes. */
export const TASK_OPTION = [
  "--task <task>",
  "a task that comes with xpatch, such as country-capital, or a task file (docs/tasks.md)",
] as const;

/** Reads a task: a file where `ref` ends in .json, otherwise one that comes with xpatch. Throws XpatchError. */
export async function readTask(ref: string): Promise<Task> {
  if (ref.endsWith(".json")) return parseTask(await readFile(ref, "utf8"), ref);
  const names = (await readdir(SHIPPED)).map((file) => file.replace(/\.json$/, ""));
  if (!names.includes(ref)) {
    throw new XpatchError(`there is no task "${ref}"; expected a .json file, or one of ${names.join(", ")}`);
  }
  return parseTask(await readFile(new URL(`${ref}.json`, SHIPPED), "utf8"), ref);
}
