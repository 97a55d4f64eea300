import { readdir, readFile } from "node:fs/promises";
import { basename } from "node:path";
import { fileURLToPath } from "node:url";
import { csvParse } from "d3-dsv";
import { parseTask, type Task } from "../patching/task.ts";
import { XpatchError } from "../tensor/errors.ts";

const SHIPPED = new URL("../../tasks/", import.meta.url);

/** What --task takes. */
export const TASK_OPTION = [
  "--task <task>",
  "a task that comes with xpatch, such as country-capital, or a task file, .json or .csv (docs/tasks.md)",
] as const;

/** Reads a task: a file where `ref` ends in .json or .csv, otherwise one that comes with xpatch. Throws XpatchError. */
export async function readTask(ref: string): Promise<Task> {
  if (ref.endsWith(".json")) return parseTask(await readFile(ref, "utf8"), ref);
  if (ref.endsWith(".csv"))
    return parseTask(jsonOfCsv(await readFile(ref, "utf8"), basename(ref, ".csv")), ref);
  const names = await shippedNames();
  if (!names.includes(ref)) {
    throw new XpatchError(
      `there is no task "${ref}"; expected a .json or .csv file, or one of ${names.join(", ")}`,
    );
  }
  return readShipped(ref);
}

/**
 * A table with a header as a task file: columns are the fields of items, empty ones are left out, and several right
 * outputs are divided by `|`.
 */
function jsonOfCsv(text: string, name: string): string {
  const items = csvParse(text).map(({ output, ...rest }) => {
    const fields = Object.entries(rest).filter(([, value]) => value !== "");
    return { output: output?.split("|").map((one) => one.trim()), ...Object.fromEntries(fields) };
  });
  return JSON.stringify({ name, items });
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
  return parseTask(await readFile(path, "utf8"), path);
}
