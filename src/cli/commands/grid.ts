import type { Command } from "commander";
import { addCommonOptions, newCommand } from "../options/command.ts";
import { gridMergeCommand } from "./grid/merge.ts";
import { gridPlanCommand } from "./grid/plan.ts";
import { gridRunCommand } from "./grid/run.ts";
import { gridServeCommand } from "./grid/serve.ts";
import { gridStatusCommand } from "./grid/status.ts";
import { gridWorkCommand } from "./grid/work.ts";

/** A command of commands; each is a file in grid/ and a line here. */
export function gridCommand(): Command {
  const command = newCommand(
    "grid",
    "Experiments on many machines: plan, run shards or serve a queue, see how far they are, merge",
    [
      "grid plan plan.yaml store",
      "grid run store --shard 3/8",
      "grid serve store --workers 2",
      "grid status store",
      "grid merge store --out results",
    ],
  );
  const parts = [
    gridPlanCommand(),
    gridRunCommand(),
    gridServeCommand(),
    gridWorkCommand(),
    gridStatusCommand(),
    gridMergeCommand(),
  ];
  for (const part of parts) command.addCommand(addCommonOptions(part));
  return command;
}
