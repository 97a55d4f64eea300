import { join } from "node:path";
import type { Command } from "commander";
import {
  addCosts,
  checkTasks,
  EXPERIMENTS,
  type Experiment,
  FolderLock,
  forwardPassEquivalents,
  Lab,
  labOptions,
  NO_COST,
  paperTasks,
  runExperiments,
  type Setting,
  Store,
  settingOf,
  showCell,
  type Table,
  taskSettings,
  type Verdict,
  type WrittenRows,
  writeRows,
} from "#experiments/index";
import type { ModelOutline } from "../../model/language-model.ts";
import { OpenModel } from "../../model/open-model.ts";
import { loadModel, type PatchableModel } from "../../patching/model.ts";
import { oneOf } from "../options/arguments.ts";
import { checkPictures, ofOption } from "../options/checks.ts";
import { newCommand } from "../options/command.ts";
import {
  addExperimentOptions,
  type ExperimentArguments,
  shownOptions,
} from "../options/experiment-options.ts";
import { downloadShower, knownLlm, readOptions, withModel } from "../options/session.ts";
import { readTask } from "../options/task-file.ts";
import { checkStack } from "../options/task-options.ts";
import { stoppable } from "../terminal/interrupt.ts";
import { table } from "../terminal/layout.ts";
import { printResult } from "../terminal/output.ts";
import { withProgress } from "../terminal/progress.ts";
import { experimentProgress } from "./experiment-progress.ts";

export interface ExperimentReport {
  readonly setting: Setting;
  readonly folder: string;
  readonly experiments: readonly ({ readonly name: string; readonly claim: string } & Verdict)[];
  /** Under the paper's protocol, its table beside this run's numbers, of each experiment that has a part of it. */
  readonly paper?: readonly Table[];
  /** Of all cells of the folder. */
  readonly forwardPassEquivalents: number;
  readonly plainForwardPasses: number;
  /** Files of answers and measures. */
  readonly rows: readonly WrittenRows[];
}

const NAMES = EXPERIMENTS.map(({ name }) => name);

export function experimentCommand(): Command {
  const command = newCommand("experiment", "Run one of the paper's experiments: tables, figures, a report", [
    "experiment cross-modal --out results",
    "experiment sweep --model xpatch:smollm2 --tasks country-capital,my-task.csv --seeds 1",
  ]).argument("<name>", `one of ${NAMES.join(", ")}`, experimentNamed);
  return addExperimentOptions(command).action(async (experiment: Experiment, args: ExperimentArguments) => {
    printResult(await runAndReport([experiment], args, command), args.json, formatReport);
  });
}

/** Runs experiments on the model that the arguments name, and writes their results to its folder. */
export async function runAndReport(
  experiments: readonly Experiment[],
  args: ExperimentArguments,
  command: Command,
): Promise<ExperimentReport> {
  const given = await Promise.all(args.tasks.map(readTask));
  const tasks = args.protocol === "paper" ? await ofOption("--tasks", () => paperTasks(given)) : given;
  const options = labOptions(args);
  checkTasks(tasks, options);
  if (args.llm !== undefined) await ofOption("--llm", () => checkModel(args.llm!));
  using lock = FolderLock.take(args.out);
  const prepare = async (outline: ModelOutline) => {
    await checkStack(outline, args);
    if (outline.config.vision) {
      for (const { name, items } of tasks) {
        const asked = items.filter(({ split }) => split !== "train");
        await ofOption(`--tasks: ${name}`, () => checkPictures(asked));
      }
    }
    const known = args.llm === undefined ? llmOf(args) : undefined;
    if (known !== undefined) await checkModel(known);
  };
  const run = async (model: PatchableModel): Promise<ExperimentReport> => {
    using llm = await languageModel(args, model);
    const opened = { adapters: args.lora, base: args.base };
    const read = readOptions(args);
    const setting = await settingOf({ model, opened, read, llm, tasks, options });
    const shown = shownOptions(command, args);
    const store = await Store.open(lock, setting);
    const lab = new Lab({
      model,
      llm,
      tasks,
      options,
      setting,
      store,
      folder: args.out,
      command: (name) => `npx xpatch experiment ${name}${shown}`,
    });
    using progress = experimentProgress();
    const finished = await runExperiments(lab, experiments, progress.update, {
      goOn: experiments.length > 1,
    });
    const { records } = store;
    const rows = await writeRows({ folder: args.out, setting, records, asked: lab }, args.rows);
    const paper = finished.flatMap(({ findings }) => findings.tables.filter(({ name }) => name === "paper"));
    const cost = records.reduce((sum, record) => addCosts(sum, record.cost), NO_COST);
    return {
      setting,
      folder: args.out,
      experiments: finished.map(({ experiment: { name, claim }, findings: { verdict } }) => ({
        name,
        claim,
        ...verdict,
      })),
      ...(args.protocol === "paper" && { paper }),
      forwardPassEquivalents: forwardPassEquivalents(cost),
      plainForwardPasses: cost.plainPasses,
      rows,
    };
  };
  return await stoppable(
    () => "the same command goes on from here",
    async () => {
      Store.check(lock, { options, tasks: await taskSettings(tasks) });
      return await withModel(args, prepare, run);
    },
  );
}

function llmOf({ model, llm = knownLlm(model) }: ExperimentArguments): string | undefined {
  return llm;
}

/** Opens a model and closes it again, without its weights. */
async function checkModel(ref: string): Promise<void> {
  await using _ = await OpenModel.open(ref, { accessToken: process.env.HF_TOKEN });
}

async function languageModel(
  args: ExperimentArguments,
  { device }: PatchableModel,
): Promise<PatchableModel | undefined> {
  const llm = llmOf(args);
  if (llm === undefined) return undefined;
  return await withProgress("loading the language model", (update) =>
    loadModel(llm, {
      device,
      accessToken: process.env.HF_TOKEN,
      onDownload: downloadShower(update),
      onProgress: ({ loadedBytes, totalBytes }) => update(loadedBytes, totalBytes),
    }),
  );
}

export function formatReport(report: ExperimentReport): string {
  const { setting, folder, experiments, plainForwardPasses } = report;
  const { model, adapter, options } = setting;
  const computed = Math.round(report.forwardPassEquivalents).toLocaleString("en");
  return [
    `${model.name} (${model.family}, ${model.dtypes.join(" and ")}) · ${adapter} · ${options.seeds} seeds`,
    "",
    table(experiments.map(({ name, outcome, because }) => [name, outcome, because])),
    "",
    ...(report.paper ?? []).flatMap(({ title, columns, rows }) => [
      title,
      table([columns, ...rows.map((row) => row.map(showCell))]),
      "",
    ]),
    `${computed} forward-pass equivalents; a full pass for every prompt and patch takes ${plainForwardPasses.toLocaleString("en")}`,
    `report: ${join(folder, "report.html")}`,
    `rows: ${report.rows.map(({ file, rows }) => `${file} (${rows.toLocaleString("en")})`).join(", ")}`,
  ].join("\n");
}

function experimentNamed(text: string): Experiment {
  const name = oneOf(NAMES)(text);
  return EXPERIMENTS.find((experiment) => experiment.name === name)!;
}
