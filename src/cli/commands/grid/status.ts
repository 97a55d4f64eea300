import type { Command } from "commander";
import { type GridStatus, GridStore, gridStatus } from "#experiments/grid/index";
import { type CommonArguments, newCommand } from "../../options/command.ts";
import { table } from "../../terminal/layout.ts";
import { printResult } from "../../terminal/output.ts";

/** Failures and workers that are printed; --json has all. */
const SHOWN = 10;

export function gridStatusCommand(): Command {
  return newCommand("status", "Say how far a grid is, and what failed", ["grid status store"], "grid")
    .argument("<store>", 'the folder that "grid plan" wrote')
    .action(async (folder: string, _: CommonArguments, command: Command) => {
      const status = gridStatus(GridStore.open(folder));
      printResult(status, command.optsWithGlobals<CommonArguments>().json, formatStatus);
      if (status.runs.some(({ failed }) => failed.length > 0)) process.exitCode = 1;
    });
}

function formatStatus({ complete, runs, workers, folder }: GridStatus): string {
  const columns = ["run", "cells", "finished", "refused", "failed", "missing", "hours"];
  const rows = runs.map(({ label, cells, finished, refused, failed, missing, seconds }) =>
    [label, cells, finished, refused, failed.length, missing, (seconds / 3600).toFixed(2)].map(String),
  );
  const failures = runs.flatMap(({ label, failed }) =>
    failed.map(({ name, key, error }) => `failed: ${name} (${label}: ${key}): ${error}`),
  );
  const working = workers.map(
    ({ id, since, cells }) => `worker ${id}, since ${since}: ${cells.join(", ") || "no cell"}`,
  );
  const damages = runs.flatMap(({ damages: list }) => list.map(({ where, what }) => `${where}: ${what}`));
  const shown = (lines: readonly string[]) => [
    ...lines.slice(0, SHOWN),
    ...(lines.length > SHOWN ? [`and ${lines.length - SHOWN} more, see --json`] : []),
  ];
  return [
    table([columns, ...rows]),
    ...[failures, working, damages].flatMap((lines) => (lines.length > 0 ? ["", ...shown(lines)] : [])),
    "",
    complete
      ? `complete: "xpatch grid merge ${folder} --out results" writes what it comes to`
      : `not complete: "xpatch grid run ${folder}" goes on`,
  ].join("\n");
}
