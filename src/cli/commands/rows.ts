import type { Command } from "commander";
import {
  AskedTasks,
  hasPictures,
  paperTasks,
  ROW_FORMATS,
  type RowFormat,
  type Setting,
  Store,
  taskSettings,
  type WrittenRows,
  writeRows,
} from "#experiments/index";
import { FileError, XpatchError } from "../../errors.ts";
import { FAMILIES } from "../../model/families/registry.ts";
import type { Task } from "../../tasks/task.ts";
import { choice } from "../options/arguments.ts";
import { checkWritable, ofOption } from "../options/checks.ts";
import { newCommand } from "../options/command.ts";
import { readTask } from "../options/task-file.ts";
import { showBytes, table } from "../terminal/layout.ts";
import { printResult } from "../terminal/output.ts";

interface Arguments {
  readonly tasks?: string;
  readonly format: RowFormat;
  readonly out?: string;
  readonly json?: boolean;
}

export interface RowsReport {
  readonly folder: string;
  readonly files: readonly WrittenRows[];
}

export function rowsCommand(): Command {
  return newCommand("rows", "Write a results folder's answers and measures as tables, a row each", [
    "rows results --format csv",
    "rows results --tasks country-capital,my-task.csv --out tables",
  ])
    .argument("<folder>", "what xpatch experiment or reproduce wrote")
    .addOption(choice("--format <format>", "Parquet, CSV, or both", ROW_FORMATS).default("both"))
    .option(
      "--tasks <tasks>",
      "names and files of the run's tasks (default: the shipped ones of their names)",
    )
    .option("--out <folder>", "where the files go (default: the results folder)")
    .action(async (folder: string, args: Arguments) => {
      printResult(await convertRows(folder, args), args.json, formatRows);
    });
}

async function convertRows(
  folder: string,
  { tasks: refs, format, out = folder }: Arguments,
): Promise<RowsReport> {
  const { setting, records } = Store.read(folder);
  const names = refs?.split(",").map((name) => name.trim()) ?? setting.tasks.map(({ name }) => name);
  const tasks = await ofOption("--tasks", () => tasksOf(setting, names));
  await checkWritable("--out", `${out}/answers.csv`);
  const seesPictures = FAMILIES.some(
    ({ modelType, imageRules }) => modelType === setting.model.family && imageRules !== undefined,
  );
  const asked = new AskedTasks(tasks, setting.options, (task) => seesPictures && hasPictures(task));
  return { folder, files: await writeRows({ folder, setting, records, asked }, format, out) };
}

/** The tasks of a run. Throws XpatchError where one is not as it was then: its rows would be of other items. */
async function tasksOf({ tasks, options }: Setting, refs: readonly string[]): Promise<Task[]> {
  const read = await Promise.all(refs.map(readTask));
  const found = options.protocol === "paper" ? paperTasks(read) : read;
  const settings = await taskSettings(found);
  for (const { name, hash, items } of tasks) {
    const now = settings.find((setting) => setting.name === name);
    if (!now) {
      const given = settings.map((setting) => setting.name).join(", ");
      throw new XpatchError(`expected the tasks of the run, also ${name}; found ${given}`);
    }
    if (now.hash === hash) continue;
    throw new FileError(
      `expected ${name} as it was when the run began, with ${items} items and the same pictures; found one with ${now.items} that differs`,
    );
  }
  return found;
}

function formatRows({ files }: RowsReport): string {
  return table(
    files.map(({ file, rows, bytes }) => [file, `${rows.toLocaleString("en")} rows`, showBytes(bytes)]),
  );
}
