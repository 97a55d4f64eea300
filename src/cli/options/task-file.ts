import { readdir } from "node:fs/promises";
import { basename } from "node:path";
import { fileURLToPath } from "node:url";
import { XpatchError } from "../../errors.ts";
import { nearestHint } from "../../nearest.ts";
import { readTextFile } from "../../platform/node-text.ts";
import { isPublished, parsePublishedTask } from "../../tasks/published-task.ts";
import { parseTask, type Task } from "../../tasks/task.ts";
import { parseTaskCsv } from "../../tasks/task-csv.ts";

const SHIPPED = new URL("../../../tasks/", import.meta.url);

/** What --task takes. */
export const TASK_OPTION = [
  "--task <task>",
  "a task that comes with xpatch, such as country-capital, or a .json or .csv file (docs/tasks.md)",
] as const;

/**
 * Reads a task: a file where `ref` ends in .json or .csv, otherwise one that comes with xpatch. Of a published data set
 * `ref` names one of a task's two files, and both are read. Throws XpatchError.
 */
export async function readTask(ref: string): Promise<Task> {
  if (/\.csv$/i.test(ref)) return parseTaskCsv(await readTextFile(ref), ref);
  if (/\.json$/i.test(ref)) {
    const text = await readTextFile(ref);
    return isPublished(text) ? readPublished(ref) : parseTask(text, ref);
  }
  const names = await shippedNames();
  if (!names.includes(ref)) {
    throw new XpatchError(
      `there is no task "${ref}"; expected a .json or .csv file, or one of ${names.join(", ")}${nearestHint(ref, names)}`,
    );
  }
  return readShipped(ref);
}

async function readPublished(ref: string): Promise<Task> {
  const [, stem] = /^(.*)_(?:val|test)\.json$/i.exec(ref) ?? [];
  if (stem === undefined) {
    throw new XpatchError(
      `${ref}: expected a task file with name and items, or a list in a file named …_val.json or …_test.json`,
    );
  }
  const read = async (where: string) => ({ text: await readTextFile(where), where });
  return parsePublishedTask(basename(stem), {
    validation: await read(`${stem}_val.json`),
    test: await read(`${stem}_test.json`),
  });
}

/** The tasks that come with xpatch. */
export async function readShippedTasks(): Promise<Task[]> {
  return Promise.all((await shippedNames()).map(readShipped));
}

async function shippedNames(): Promise<string[]> {
  const files = (await readdir(SHIPPED)).filter((file) => file.endsWith(".json"));
  return files.map((file) => file.replace(/\.json$/, ""));
}

async function readShipped(name: string): Promise<Task> {
  const path = fileURLToPath(new URL(`${name}.json`, SHIPPED));
  return parseTask(await readTextFile(path), path);
}
