import { type Command, Option } from "commander";
import { SPACED_TEMPLATE } from "../../tasks/few-shot.ts";
import { SPECIFICATION_KINDS, type SpecificationKind } from "../../tasks/specification.ts";
import { SPLITS, type Split } from "../../tasks/task.ts";
import { templateText, wholeNumber } from "./arguments.ts";
import { TASK_OPTION } from "./task-file.ts";

export interface TaskArguments {
  readonly task?: string;
  readonly split: Split;
  readonly template: string;
}

/** Adds --task, --split and --template. */
export function addTaskOptions(command: Command, split: Split): Command {
  const shown = SPACED_TEMPLATE.replaceAll("\n", "\\n");
  return command
    .option(...TASK_OPTION)
    .addOption(new Option("--split <split>", "which of its items").choices(SPLITS).default(split))
    .addOption(
      new Option("--template <text>", "one example; the query is what comes before {y}")
        .argParser(templateText)
        .default(SPACED_TEMPLATE, shown),
    );
}

/** How a task is shown, and which examples. */
export interface DrawArguments {
  readonly spec: SpecificationKind;
  readonly shots: number;
  readonly seed: number;
}

/** Adds --spec, --shots and --seed. */
export function addDrawOptions(command: Command, leastShots = 1): Command {
  return command
    .addOption(
      new Option("--spec <kind>", "what tells the task: examples with text or pictures, or its instruction")
        .choices(SPECIFICATION_KINDS)
        .default("text"),
    )
    .option("--shots <n>", "examples in a prompt, from the other items", wholeNumber(leastShots), 5)
    .option("--seed <n>", "seed of the draw of examples", wholeNumber(0), 0);
}
