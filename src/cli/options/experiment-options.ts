import { type Command, InvalidArgumentError, Option } from "commander";
import {
  type GivenOptions,
  OPTION_DEFAULTS,
  PAPER_TASKS,
  ROW_FORMATS,
  type RowFormat,
  SET_BY_PROTOCOL,
} from "#experiments/index";
import { SPECIFICATION_KINDS, type SpecificationKind } from "../../tasks/specification.ts";
import { choice, templateText, wholeNumber } from "./arguments.ts";
import { addModelOptions, type ModelArguments } from "./session.ts";
import { addStackOption } from "./task-options.ts";

export interface ExperimentArguments extends ModelArguments, GivenOptions {
  readonly llm?: string;
  readonly tasks: readonly string[];
  readonly out: string;
  readonly rows: RowFormat;
}

/** Adds what `experiment` and `reproduce` share. */
export function addExperimentOptions(command: Command): Command {
  const shown = OPTION_DEFAULTS.template.replaceAll("\n", "\\n");
  return addStackOption(addModelOptions(command))
    .option(
      "--llm <ref>",
      "the language model that it was fine-tuned from (default: xpatch:llm for xpatch:vlm, else none)",
    )
    .option("--tasks <tasks>", "names and files (.json, .csv), divided by commas", names, [...PAPER_TASKS])
    .option(
      "--out <folder>",
      "where results go; a run that was broken off is continued from there",
      "results",
    )
    .addOption(
      choice("--rows <format>", "how answers and measures are written, a row each", ROW_FORMATS).default(
        "parquet",
      ),
    )
    .option("--seeds <n>", "draws of the examples", wholeNumber(1), OPTION_DEFAULTS.seeds)
    .option(
      "--prompt-seeds <n>",
      "of these, how many test prompts are made with, but for the claim's own (default: all)",
      wholeNumber(1),
    )
    .option(
      "--shots <n>",
      "examples in a prompt; a task vector sees all but the last",
      wholeNumber(2),
      OPTION_DEFAULTS.shots,
    )
    .addOption(
      new Option("--template <text>", "one example; the query is what comes before {y}")
        .argParser(templateText)
        .default(OPTION_DEFAULTS.template, shown),
    )
    .option("--validation-items <n>", "most validation items a task (default: all)", wholeNumber(1))
    .option("--test-items <n>", "most test items a task (default: all)", wholeNumber(1))
    .option("--train-tasks <n>", "fine-tuning: most tasks that are trained on (default: 3)", wholeNumber(1))
    .option(
      "--train-seeds <n>",
      "fine-tuning: trainings of each kind, of --seeds (default: 2)",
      wholeNumber(1),
    )
    .option("--train-steps <n>", "fine-tuning: steps of a training (default: 24)", wholeNumber(4))
    .option("--picture-width <pixels>", "make pictures so wide first; the paper: 224", wholeNumber(1))
    .addOption(
      choice("--layer-by <what>", "whether tasks share the layer that is best for their mean", [
        "mean",
        "task",
      ]).default(OPTION_DEFAULTS.layerBy),
    )
    .option("--outside-means <tasks>", "tasks to report but to keep out of means", names, [
      ...OPTION_DEFAULTS.outsideMeans,
    ])
    .option(
      "--specifications <kinds>",
      "what may tell a task, divided by commas: text, and image and instruction or one of them (default: all)",
      specifications,
    )
    .addOption(
      choice(
        "--protocol <name>",
        "paper: all as the authors' program does, but for its 4-bit weights, which xpatch has not yet; and its table beside this run's",
        ["paper"],
      ).conflicts([...SET_BY_PROTOCOL, "quick"]),
    );
}

/** What an experiment does not depend on: where its results go, and how they are printed. */
const WITHOUT_EFFECT: readonly string[] = ["out", "rows", "json", "quick", "full"];

/** The options with which `xpatch experiment` computes the same as a command did: all that are not at their defaults. */
export function shownOptions(command: Command, args: ExperimentArguments): string {
  const values = args as unknown as Readonly<Record<string, unknown>>;
  return command.options
    .flatMap((option) => {
      const value = values[option.attributeName()];
      const same = JSON.stringify(value) === JSON.stringify(option.defaultValue);
      if (same || value === undefined || WITHOUT_EFFECT.includes(option.attributeName())) return [];
      return value === true
        ? [` ${option.long}`]
        : wordsOf(option, value).map((word) => ` ${option.long} ${word}`);
    })
    .join("");
}

/** The values of an option as a shell takes them; most have one. */
function wordsOf(option: Option, value: unknown): string[] {
  if (option.parseArg === names || option.parseArg === specifications)
    return [shellWord((value as string[]).join(","))];
  if (Array.isArray(value)) return value.map((one) => shellWord(`${one}`));
  return [shellWord(option.parseArg === templateText ? escapesOf(`${value}`) : `${value}`)];
}

/** The inverse of `escapedText`. */
function escapesOf(text: string): string {
  return text.replaceAll("\\", "\\\\").replaceAll("\n", "\\n").replaceAll("\t", "\\t");
}

function shellWord(text: string): string {
  return /^[\w./:,=@+-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

function names(text: string): string[] {
  const list = text.split(",").map((name) => name.trim());
  if (list.every((name) => name !== "") && new Set(list).size === list.length) return list;
  throw new InvalidArgumentError("Expected names divided by commas, each once.");
}

/** Claims rest on text examples, so that these are always among them. */
function specifications(text: string): SpecificationKind[] {
  const given: readonly string[] = names(text);
  const known = SPECIFICATION_KINDS.filter((kind) => given.includes(kind));
  if (known.length === given.length && known.includes("text")) return known;
  throw new InvalidArgumentError(`Expected text, and image and instruction or one of them.`);
}
