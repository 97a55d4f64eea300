import { readdir, readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
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
  const files = (await readdir(SHIPPED)).filter((file) => file.endsWith(".json"));
  const names = files.map((file) => file.replace(/\.json$/, ""));
  if (!names.includes(ref)) {
    throw new XpatchError(`there is no task "${ref}"; expected a .json file, or one of ${names.join(", ")}`);
  }
  const path = fileURLToPath(new URL(`${ref}.json`, SHIPPED));
  return parseTask(await readFile(path, "utf8"), path);
}
