import { access, constants, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import type { Command } from "commander";
import type { Prompt } from "../model/prompt.ts";
import type { LayerSite } from "../model/sites.ts";
import { drawExamples, fewShotPrompt } from "../patching/few-shot.ts";
import type { PatchableModel } from "../patching/model.ts";
import { encodeTaskVectors, extractTaskVectors, type TaskVectorOrigin } from "../patching/task-vectors.ts";
import { layerSite, layers, position, wholeNumber } from "./arguments.ts";
import { newCommand } from "./command.ts";
import { showBytes, table } from "./layout.ts";
import { printResult, withProgress } from "./output.ts";
import {
  addModelOptions,
  formatSetting,
  type ModelArguments,
  type Setting,
  settingOf,
  withModel,
} from "./session.ts";
import { addTaskOptions, readItems, type TaskArguments } from "./task-options.ts";
import { readLines } from "./text-files.ts";

interface Arguments extends ModelArguments, TaskArguments {
  readonly prompts?: string;
  readonly shots: number;
  readonly seed: number;
  readonly site: LayerSite;
  readonly layers?: readonly number[];
  readonly position: number;
  readonly out: string;
}

export interface ExtractReport extends Setting {
  readonly out: string;
  readonly bytes: number;
  readonly width: number;
  readonly vectors: TaskVectorOrigin;
}

export function extractCommand(): Command {
  const command = addModelOptions(
    newCommand("extract", "Average an activation over prompts: a task vector for every layer", [
      "extract --model ./smollm2 --task country-capital --out capital.safetensors",
      "extract --model ./smollm2 --prompts shots.txt --layers 10-29 --out capital.safetensors",
    ]),
  )
    .requiredOption("--out <file>", "safetensors file to write")
    .option("--prompts <file>", "a prompt a line, with \\n for new lines");
  return addTaskOptions(command, "train")
    .option("--shots <n>", "examples before each item's query, from the other items", wholeNumber(0), 5)
    .option("--seed <n>", "seed of the draw of examples", wholeNumber(0), 0)
    .option("--site <site>", "which activation of each layer", layerSite, "resid_post")
    .option("--layers <layers>", "such as 0-5,8 (default: all)", layers)
    .option("--position <n>", "which token of each prompt", position, -1)
    .action(async (args: Arguments) => {
      if ((args.prompts === undefined) === (args.task === undefined)) {
        command.error("error: expected either --task or --prompts");
      }
      await access(dirname(args.out), constants.W_OK);
      const makePrompts = await promptSource(args);
      const report = await withModel(args, (model) => extract(model, makePrompts(model), args));
      printResult(report, args.json, formatExtraction);
    });
}

async function extract(
  model: PatchableModel,
  prompts: readonly Prompt[],
  args: Arguments,
): Promise<ExtractReport> {
  const { site, position: at, out } = args;
  using vectors = await withProgress("extracting", (update) =>
    extractTaskVectors(model, prompts, {
      site,
      at,
      layers: args.layers,
      onProgress: (done) => update(done, prompts.length),
    }),
  );
  const bytes = await encodeTaskVectors(vectors);
  await writeFile(out, bytes);
  const setting = settingOf(model, args.task === undefined ? undefined : args.seed);
  return { ...setting, out, bytes: bytes.length, width: vectors.vectors.dim(1), vectors: vectors.origin };
}

/** Reads the lines of --prompts, or the items of the task, and makes prompts of them: few-shot ones of items. */
async function promptSource({
  prompts: path,
  task,
  split,
  template,
  shots: count,
  seed,
}: Arguments): Promise<(model: PatchableModel) => Prompt[]> {
  if (task === undefined) {
    const lines = await readLines(path!);
    return (model) => lines.map((text) => model.prompt(text));
  }
  const items = await readItems(task, split);
  return (model) =>
    items.map((item) =>
      fewShotPrompt(model, drawExamples(items, item, { count, seed }), item.input, template),
    );
}

function formatExtraction(report: ExtractReport): string {
  const { out, bytes, width, vectors } = report;
  const rows = [
    ["activation", `${vectors.site}, ${width} wide, at ${vectors.position}`],
    ["layers", vectors.layers.join(", ")],
    ["prompts", `${vectors.prompts} (${vectors.promptHash})`],
    ["written to", `${out}, ${showBytes(bytes)}`],
  ];
  return `${formatSetting(report)}\n\n${table(rows)}`;
}
