import { writeFile } from "node:fs/promises";
import type { Command } from "commander";
import type { LayerSite } from "../model/sites.ts";
import type { PatchableModel } from "../patching/model.ts";
import { encodeTaskVectors, extractTaskVectors, type TaskVectorOrigin } from "../patching/task-vectors.ts";
import { layerSite, layers, position } from "./arguments.ts";
import { newCommand } from "./command.ts";
import { showBytes, table } from "./layout.ts";
import { printResult, withProgress } from "./output.ts";
import {
  formatSetting,
  MODEL_OPTION,
  type ModelArguments,
  type Setting,
  settingOf,
  withModel,
} from "./session.ts";
import { readLines } from "./text-files.ts";

interface Arguments extends ModelArguments {
  readonly prompts: string;
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
  const command = newCommand("extract", "Average an activation over prompts: a task vector for every layer", [
    "extract --model ./smollm2 --prompts shots.txt --layers 10-29 --out capital.safetensors",
  ]);
  return command
    .requiredOption(...MODEL_OPTION)
    .requiredOption("--prompts <file>", "a prompt a line, with \\n for new lines")
    .requiredOption("--out <file>", "safetensors file to write")
    .option("--site <site>", "which activation of each layer", layerSite, "resid_post")
    .option("--layers <layers>", "such as 0-5,8 (default: all)", layers)
    .option("--position <n>", "which token of each prompt", position, -1)
    .action(async (args: Arguments) => {
      const report = await withModel(args, (model) => extract(model, args));
      printResult(report, args.json, formatExtraction);
    });
}

async function extract(model: PatchableModel, args: Arguments): Promise<ExtractReport> {
  const prompts = (await readLines(args.prompts)).map((text) => model.prompt(text));
  using vectors = await withProgress("extracting", (update) =>
    extractTaskVectors(model, prompts, {
      site: args.site,
      at: args.position,
      layers: args.layers,
      onProgress: (done) => update(done, prompts.length),
    }),
  );
  const bytes = await encodeTaskVectors(vectors);
  await writeFile(args.out, bytes);
  const { origin } = vectors;
  return {
    ...settingOf(model),
    out: args.out,
    bytes: bytes.length,
    width: vectors.vectors.dim(1),
    vectors: origin,
  };
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
