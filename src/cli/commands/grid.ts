import type { Command } from "commander";
import { addCommonOptions, newCommand } from "../options/command.ts";
import { gridMergeCommand } from "./grid/merge.ts";
import { gridPlanCommand } from "./grid/plan.ts";
import { gridRunCommand } from "./grid/run.ts";
import { gridStatusCommand } from "./grid/status.ts";

/** A command of commands; each is a file in grid/ and a line here. */
export function gridCommand(): Command {
  const command = newCommand(
    "grid",
    "Experiments on many machines: plan, run shards, see how far they are, merge",
    [
      "grid plan plan.yaml store",
      "grid run store --shard 3/8",
      "grid status store",
      "grid merge store --out results",
    ],
  );
  for (const part of [gridPlanCommand(), gridRunCommand(), gridStatusCommand(), gridMergeCommand()]) {
    command.addCommand(addCommonOptions(part));
  }
  return command;
}
