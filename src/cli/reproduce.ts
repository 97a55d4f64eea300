import type { Command } from "commander";
import { EXPERIMENTS } from "#experiments/index";
import { newCommand } from "./command.ts";
import { formatReport, runAndReport } from "./experiment.ts";
import { addExperimentOptions, type ExperimentArguments } from "./experiment-options.ts";
import { printResult } from "./output.ts";

/** What --quick sets, unless the user sets it: enough to see every figure, too little to conclude from. */
const QUICK = { seeds: 1, promptSeeds: 1, validationItems: 4, testItems: 8 };

export function reproduceCommand(): Command {
  const command = newCommand("reproduce", "Run all of the paper's experiments and write one report", [
    "reproduce --model ./vlm --llm ./smollm2 --out results",
    "reproduce --model ./vlm --quick",
  ]);
  return addExperimentOptions(command)
    .option("--quick", `few items and one seed: ${JSON.stringify(QUICK)}`)
    .action(async (args: ExperimentArguments & { quick?: boolean }) => {
      const given = (name: string) => command.getOptionValueSource(name) === "cli";
      const quick = Object.entries(QUICK).filter(([name]) => args.quick && !given(name));
      const all = { ...args, ...Object.fromEntries(quick) };
      printResult(await runAndReport(EXPERIMENTS, all), args.json, formatReport);
    });
}
