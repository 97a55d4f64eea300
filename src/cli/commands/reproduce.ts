import { type Command, Option } from "commander";
import { EXPERIMENTS } from "#experiments/index";
import { newCommand } from "../options/command.ts";
import { addExperimentOptions, type ExperimentArguments } from "../options/experiment-options.ts";
import { printResult } from "../terminal/output.ts";
import { formatReport, runAndReport } from "./experiment.ts";

/** How much is done, unless the user says it by options of its own: `full` is every item under three seeds. */
const EFFORTS: Readonly<Record<"quick" | "standard", Partial<ExperimentArguments>>> = {
  quick: {
    tasks: ["country-capital", "country-currency"],
    seeds: 1,
    promptSeeds: 1,
    shots: 2,
    validationItems: 4,
    testItems: 4,
  },
  standard: { seeds: 2, promptSeeds: 1, validationItems: 5, testItems: 10 },
};

export function reproduceCommand(): Command {
  const command = newCommand("reproduce", "Run all of the paper's experiments and write one report", [
    "reproduce --out results",
    "reproduce --quick",
    "reproduce --model llava-hf/llava-1.5-7b-hf --llm ./vicuna --full --picture-width 224",
  ]);
  return addExperimentOptions(command)
    .option("--quick", `to see every figure, not to conclude from: ${shown(EFFORTS.quick)}`)
    .addOption(
      new Option(
        "--full",
        `every item, seed and experiment, in place of ${shown(EFFORTS.standard)}`,
      ).conflicts("quick"),
    )
    .action(async (args: ExperimentArguments & { quick?: boolean; full?: boolean }) => {
      const effort = args.full ? {} : EFFORTS[args.quick ? "quick" : "standard"];
      const left = Object.entries(effort).filter(([name]) => command.getOptionValueSource(name) !== "cli");
      const all = { ...args, ...Object.fromEntries(left) };
      const experiments = EXPERIMENTS.filter(({ onlyInFull }) => args.full || !onlyInFull);
      printResult(await runAndReport(experiments, all, command), args.json, formatReport);
    });
}

function shown(effort: object): string {
  const options = Object.entries(effort).map(([name, value]) => {
    const option = name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
    return `--${option} ${value}`;
  });
  return options.join(" ");
}
