import type { Command } from "commander";
import { allLayers } from "../../analysis/layers.ts";
import { encodeTaskVectors, type TaskVectorOrigin } from "../../analysis/vectors/task-vectors.ts";
import type { ModelOutline } from "../../model/language-model.ts";
import type { Prompt } from "../../model/prompt/prompt.ts";
import type { VectorSite } from "../../model/walk/sites.ts";
import type { PatchableModel } from "../../patching/model.ts";
import { type Setting, settingOf, showSetting } from "../../patching/setting.ts";
import { writeWhole } from "../../platform/node-write.ts";
import { taskSource } from "../../tasks/specification.ts";
import { layers, position, vectorSite } from "../options/arguments.ts";
import {
  checkLayerOption,
  checkLengths,
  checkPositions,
  checkWritable,
  ofOption,
} from "../options/checks.ts";
import { newCommand, refuseUnused } from "../options/command.ts";
import { addModelOptions, type ModelArguments, withModel } from "../options/session.ts";
import { readTask } from "../options/task-file.ts";
import {
  addDrawOptions,
  addTaskOptions,
  checkDraw,
  type DrawArguments,
  HOW_TASKS_ARE_SHOWN,
  refuseExamples,
  type TaskArguments,
} from "../options/task-options.ts";
import { readLines } from "../options/text-files.ts";
import { showBytes, table } from "../terminal/layout.ts";
import { printResult } from "../terminal/output.ts";
import { extractWithProgress } from "./extraction.ts";

interface Arguments extends ModelArguments, TaskArguments, DrawArguments {
  readonly prompts?: string;
  readonly site: VectorSite;
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
      "extract --model xpatch:smollm2 --task country-capital --out capital.safetensors",
      "extract --model xpatch:smollm2 --prompts shots.txt --layers 10-29 --out capital.safetensors",
    ]),
  )
    .requiredOption("--out <file>", "safetensors file to write")
    .option("--prompts <file>", "a prompt a line, with \\n for new lines");
  return addDrawOptions(addTaskOptions(command, "train"), 0)
    .option(
      "--site <site>",
      "which activation of each layer; encoder.resid_post is that of an encoder-decoder's encoder",
      vectorSite(),
      "resid_post",
    )
    .option("--layers <layers>", "such as 0-5,8 (default: all)", layers)
    .option("--position <n>", "which token of each prompt", position, -1)
    .action(async (args: Arguments) => {
      if ((args.prompts === undefined) === (args.task === undefined)) {
        command.error("error: expected either --task or --prompts");
      }
      if (args.prompts !== undefined) refuseUnused(command, HOW_TASKS_ARE_SHOWN, "--task");
      refuseExamples(command, args);
      await checkWritable("--out", args.out);
      const makePrompts = await promptSource(args);
      const report = await withModel(
        args,
        async (model) => {
          await ofOption("--site", () => allLayers(model, args.site));
          checkLayerOption(model, args.layers, args.site);
          const prompts = await makePrompts(model);
          checkLengths(model, prompts);
          await checkPositions(model, "--position", args.position, prompts, args.site);
          return prompts;
        },
        (model, prompts) => extract(model, prompts, args),
      );
      printResult(report, args.json, formatExtraction);
    });
}

async function extract(
  model: PatchableModel,
  prompts: readonly Prompt[],
  args: Arguments,
): Promise<ExtractReport> {
  const { site, position: at, out } = args;
  using vectors = await extractWithProgress(model, prompts, { site, at, layers: args.layers });
  const bytes = await encodeTaskVectors(vectors);
  await writeWhole(out, bytes);
  const setting = settingOf(model, args.task === undefined ? undefined : args.seed);
  return { ...setting, out, bytes: bytes.length, width: vectors.vectors.dim(1), vectors: vectors.origin };
}

/** Reads the lines of --prompts, or the task, and makes prompts of them. */
async function promptSource(
  args: Arguments,
): Promise<(model: ModelOutline) => Prompt[] | Promise<readonly Prompt[]>> {
  const { prompts: path, task: ref, split, template, spec: kind, shots: count, seed } = args;
  if (ref === undefined) {
    const lines = await ofOption("--prompts", () => readLines(path!));
    return (model) => lines.map((text) => model.prompt(text));
  }
  const task = await readTask(ref);
  await checkDraw(task, split, args);
  return async (model) => (await taskSource(model, task, split, { kind, count, seed, template })).prompts;
}

function formatExtraction(report: ExtractReport): string {
  const { out, bytes, width, vectors } = report;
  const rows = [
    ["activation", `${vectors.site}, ${width} wide, at ${vectors.position}`],
    ["layers", vectors.layers.join(", ")],
    ["prompts", `${vectors.prompts} (${vectors.promptHash})`],
    ["written to", `${out}, ${showBytes(bytes)}`],
  ];
  return `${showSetting(report)}\n\n${table(rows)}`;
}
