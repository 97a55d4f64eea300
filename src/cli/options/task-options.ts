import { type Command, Option } from "commander";
import { allLayers } from "../../analysis/layers.ts";
import type { ModelOutline } from "../../model/language-model.ts";
import { drawItems, SPACED_TEMPLATE } from "../../tasks/few-shot.ts";
import {
  instructionOf,
  poolOf,
  SPECIFICATION_KINDS,
  type SpecificationKind,
} from "../../tasks/specification.ts";
import { SPLITS, type Split, type Task } from "../../tasks/task.ts";
import { choice, templateText, wholeNumber } from "./arguments.ts";
import { checkPictures, ofOption } from "./checks.ts";
import { refuseUnused } from "./command.ts";
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
    .addOption(choice("--split <split>", "which of its items", SPLITS).default(split))
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

/** In which stack of an encoder-decoder a task's vectors are made and put. */
export interface StackArguments {
  readonly stack: "decoder" | "encoder";
}

/** Adds --stack. */
export function addStackOption(command: Command): Command {
  return command.addOption(
    choice(
      "--stack <stack>",
      "of an encoder-decoder, whose layers vectors are read and put in; other models are decoders",
      ["decoder", "encoder"],
    ).default("decoder"),
  );
}

/** The residual stream of that stack. */
export function streamOf({ stack }: StackArguments): "resid_post" | "encoder.resid_post" {
  return stack === "encoder" ? "encoder.resid_post" : "resid_post";
}

/** Throws SiteError, led by the option, where a model lacks the stack. */
export async function checkStack(model: ModelOutline, args: StackArguments): Promise<void> {
  await ofOption("--stack", () => allLayers(model, streamOf(args)));
}

/** How a task's prompts are made, as options of {@link addTaskOptions} and {@link addDrawOptions}: unused without a task. */
export const HOW_TASKS_ARE_SHOWN = ["split", "template", "spec", "shots", "seed"] as const;

/** A usage error for examples asked for beside an instruction, which has none. */
export function refuseExamples(command: Command, { spec }: Pick<DrawArguments, "spec">): void {
  if (spec === "instruction") refuseUnused(command, ["shots"], "examples (--spec text or image)");
}

/** Throws XpatchError, led by the option, where a split of a task lacks what prompts that tell it are made of. */
export async function checkDraw(
  task: Task,
  split: Split,
  { spec: kind, shots: count }: Pick<DrawArguments, "spec" | "shots">,
): Promise<void> {
  const pool = await ofOption("--task", async () => {
    const items = poolOf(kind, task, split);
    if (kind === "image") await checkPictures(items);
    return items;
  });
  if (kind === "instruction") await ofOption("--spec", () => instructionOf(task));
  else await ofOption("--shots", () => drawItems(pool, pool[0]!, { count }));
}

/** Adds --spec, --shots and --seed. */
export function addDrawOptions(command: Command, leastShots = 1): Command {
  return command
    .addOption(
      choice(
        "--spec <kind>",
        "what tells the task: examples with text or pictures, or its instruction",
        SPECIFICATION_KINDS,
      ).default("text"),
    )
    .option("--shots <n>", "examples in a prompt, from the other items", wholeNumber(leastShots), 5)
    .option("--seed <n>", "seed of the draw of examples", wholeNumber(0), 0);
}
