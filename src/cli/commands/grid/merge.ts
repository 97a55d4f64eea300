import { Command } from "commander";
import { GridStore, type MergedRun, mergeGrid, type StoredRun } from "#experiments/grid/index";
import { ROW_FORMATS, type RowFormat } from "#experiments/index";
import { choice } from "../../options/arguments.ts";
import { type CommonArguments, newCommand } from "../../options/command.ts";
import {
  addExperimentOptions,
  type ExperimentArguments,
  shownOptions,
} from "../../options/experiment-options.ts";
import { GRID_SOURCES } from "../../options/grid-sources.ts";
import { knownLlm } from "../../options/session.ts";
import { table } from "../../terminal/layout.ts";
import { printResult } from "../../terminal/output.ts";

interface MergeArguments extends CommonArguments {
  readonly out: string;
  readonly partial?: boolean;
  readonly rows: RowFormat;
}

interface MergeReport {
  readonly out: string;
  readonly runs: readonly MergedRun[];
}

export function gridMergeCommand(): Command {
  return newCommand(
    "merge",
    "Write what the cells of a grid come to: tables, figures, a report for each run",
    ["grid merge store --out results"],
    "grid",
  )
    .argument("<store>", 'the folder that "grid plan" wrote')
    .requiredOption("--out <folder>", "where results go: new, or what the same grid was merged to")
    .option("--partial", "where cells are missing, leave their experiments out, and say so in the report")
    .addOption(
      choice("--rows <format>", "how answers and measures are written, a row each", ROW_FORMATS).default(
        "parquet",
      ),
    )
    .action(async (folder: string, _: MergeArguments, command: Command) => {
      const { out, partial, rows, json } = command.optsWithGlobals<MergeArguments>();
      const runs = await mergeGrid(GridStore.open(folder), GRID_SOURCES, {
        out,
        rows,
        ...(partial && { partial }),
        command: experimentCommandOf,
      });
      printResult({ out, runs }, json, formatReport);
    });
}

/** What computes an experiment of a run by itself, as it stands in the run's report. */
export function experimentCommandOf({ source, tasks, options }: StoredRun, experiment: string): string {
  const command = addExperimentOptions(new Command());
  const { llm, ...model } = source;
  const args: ExperimentArguments = {
    ...command.opts<ExperimentArguments>(),
    ...model,
    ...(llm !== knownLlm(source.model) && { llm }),
    tasks,
    ...options,
  };
  return `npx xpatch experiment ${experiment}${shownOptions(command, args)}`;
}

function formatReport({ out, runs }: MergeReport): string {
  const rows = runs.flatMap(({ label, experiments }) =>
    experiments.map(({ name, outcome, because }) => [label, name, outcome, because]),
  );
  return [table(rows), "", `report.html of each run, and summary.csv of all, are in ${out}`].join("\n");
}
