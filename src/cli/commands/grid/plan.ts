import type { Command } from "commander";
import { expandPlan, GridStore, readPlan } from "#experiments/grid/index";
import { type CommonArguments, newCommand } from "../../options/command.ts";
import { GRID_SOURCES } from "../../options/grid-sources.ts";
import { table } from "../../terminal/layout.ts";
import { printResult } from "../../terminal/output.ts";
import { withProgress } from "../../terminal/progress.ts";

interface PlanReport {
  readonly store: string;
  readonly cells: number;
  readonly runs: readonly {
    readonly id: string;
    readonly label: string;
    readonly cells: number;
    readonly experiments: readonly {
      readonly name: string;
      readonly cells: number;
      readonly untestable?: string;
    }[];
  }[];
}

export function gridPlanCommand(): Command {
  return newCommand(
    "plan",
    "Expand a plan to cells, and write them into the folder that workers share",
    ["grid plan plan.yaml store"],
    "grid",
  )
    .argument("<plan>", "YAML or JSON: models, tasks, experiments, options (docs/grids.md)")
    .argument("<store>", "folder for the cells: new, or that of the same plan")
    .action(async (path: string, folder: string, _: CommonArguments, command: Command) => {
      const { json } = command.optsWithGlobals<CommonArguments>();
      const plan = await readPlan(path);
      const expanded = await withProgress("reading the models", (update) =>
        expandPlan(plan, GRID_SOURCES, (_model, done, total) => update(done, total)),
      );
      const store = await GridStore.create(folder, expanded);
      printResult(reportOf(store), json, formatReport);
    });
}

function reportOf(store: GridStore): PlanReport {
  return {
    store: store.folder,
    cells: store.runs.reduce((sum, { count }) => sum + count, 0),
    runs: store.runs.map(({ id, label, count }) => ({
      id,
      label,
      cells: count,
      experiments: store
        .experimentsOf(id)
        .map(({ cells, ...experiment }) => ({ ...experiment, cells: cells.length })),
    })),
  };
}

function formatReport({ store, cells, runs }: PlanReport): string {
  const untestable = runs.flatMap(({ label, experiments }) =>
    experiments.flatMap(({ name, untestable: because }) =>
      because === undefined ? [] : [`${label}: ${name} is not testable here: ${because}`],
    ),
  );
  return [
    table([["run", "cells"], ...runs.map((run) => [run.label, `${run.cells}`])]),
    "",
    ...untestable,
    ...(untestable.length > 0 ? [""] : []),
    `${cells} cells in ${store}; "xpatch grid run ${store}" computes them, on any number of machines`,
  ].join("\n");
}
