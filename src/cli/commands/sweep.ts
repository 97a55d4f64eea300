import type { Command } from "commander";
import { allLayers } from "../../analysis/layers.ts";
import { scoreSweep } from "../../analysis/vectors/score-sweep.ts";
import { sweepLayers } from "../../analysis/vectors/sweep-layers.ts";
import type { StoredTaskVectors, TaskVectorOrigin } from "../../analysis/vectors/task-vectors.ts";
import { XpatchError } from "../../errors.ts";
import type { ModelOutline } from "../../model/language-model.ts";
import type { Prompt } from "../../model/prompt/prompt.ts";
import type { PatchableModel } from "../../patching/model.ts";
import { type Setting, settingOf, showSetting } from "../../patching/setting.ts";
import { readTextFile } from "../../platform/node-text.ts";
import { fewShotPrompt } from "../../tasks/few-shot.ts";
import { type Score, type ScoredAnswers, scoreTokens } from "../../tasks/score.ts";
import { askerIn, itemsIn, MODALITIES, type Modality } from "../../tasks/specification.ts";
import type { TaskItem } from "../../tasks/task.ts";
import { choice, escapedText, layers, position } from "../options/arguments.ts";
import {
  checkLayerOption,
  checkLengths,
  checkPictures,
  checkPositions,
  checkWidth,
  ofOption,
} from "../options/checks.ts";
import { newCommand, refuseUnused } from "../options/command.ts";
import { addModelOptions, type ModelArguments, withModel } from "../options/session.ts";
import { readTask } from "../options/task-file.ts";
import { addTaskOptions, type TaskArguments } from "../options/task-options.ts";
import { formatOrigin, readVectorFile } from "../options/vector-files.ts";
import { bar, showPercent, table } from "../terminal/layout.ts";
import { printResult } from "../terminal/output.ts";
import { withProgress } from "../terminal/progress.ts";

interface Arguments extends ModelArguments, TaskArguments {
  readonly vectors: string;
  readonly queries?: string;
  readonly query: Modality;
  readonly layers?: readonly number[];
  readonly position: number;
}

export interface SweepReport extends Setting {
  readonly vectors: TaskVectorOrigin;
  readonly queries: readonly { readonly prompt: string; readonly outputs: readonly string[] }[];
  readonly unpatched: ScoredAnswers;
  readonly layers: readonly ({ readonly layer: number } & ScoredAnswers)[];
  /** The layer with the highest accuracy; of equals the first. */
  readonly best: number;
  /** Rows times layers computed, and those of a full pass for every layer and query. */
  readonly rowLayers: number;
  readonly plainRowLayers: number;
}

export function sweepCommand(): Command {
  const command = addModelOptions(
    newCommand("sweep", "Patch each layer's task vector into queries: accuracy by layer", [
      "sweep --model xpatch:smollm2 --vectors capital.safetensors --task country-capital",
      "sweep --model xpatch:smollm2 --vectors capital.safetensors --queries queries.tsv --layers 15-25",
    ]),
  )
    .requiredOption("--vectors <file>", "task vectors that xpatch extract wrote")
    .option(
      "--queries <file>",
      "instead of a task: a line each with a prompt and its right answers, divided by tabs; \\n for new lines",
    );
  return addTaskOptions(command, "validation")
    .addOption(
      choice("--query <kind>", "whether a task's questions are names or pictures", MODALITIES).default(
        "text",
      ),
    )
    .option("--layers <layers>", "such as 0-5,8 (default: all that there are vectors for)", layers)
    .option("--position <n>", "which token of each query is patched", position, -1)
    .action(async (args: Arguments) => {
      if ((args.queries === undefined) === (args.task === undefined)) {
        command.error("error: expected either --task or --queries");
      }
      if (args.queries !== undefined) refuseUnused(command, ["split", "template", "query"], "--task");
      const items = await readItems(args);
      const file = await ofOption("--vectors", () => readVectorFile(args.vectors));
      await ofOption("--layers", () => {
        for (const layer of args.layers ?? []) file.at(layer);
      });
      const report = await withModel(
        args,
        (model) => prepare(model, items, file, args),
        (model, prompts) => sweep(model, items, prompts, file, args),
      );
      printResult(report, args.json, formatSweep);
    });
}

/** The queries as prompts, checked together with the vectors that are to be patched into them. */
async function prepare(
  model: ModelOutline,
  items: readonly TaskItem[],
  file: StoredTaskVectors,
  args: Arguments,
): Promise<Prompt[]> {
  const { layers: asked, position } = args;
  const { site, layers: extracted } = file.origin;
  await ofOption("--vectors", () => allLayers(model, site));
  checkLayerOption(model, asked, site);
  await ofOption("--vectors", () => {
    for (const layer of asked ?? extracted) checkWidth(model, `${site}.${layer}`, file);
  });
  // The lines of --queries are prompts already, the items of a task are what zero-shot queries ask about.
  const asker = await askerIn(args.task === undefined ? "text" : args.query, model, items);
  const prompts = items.map((item) =>
    args.task === undefined ? model.prompt(item.input) : fewShotPrompt(model, [], asker(item), args.template),
  );
  checkLengths(model, prompts);
  await checkPositions(model, "--position", position, prompts, site);
  return prompts;
}

async function sweep(
  model: PatchableModel,
  items: readonly TaskItem[],
  prompts: readonly Prompt[],
  file: StoredTaskVectors,
  args: Arguments,
): Promise<SweepReport> {
  using vectors = file.on(model.device);
  const swept = await withProgress("sweeping", (update) =>
    sweepLayers(model, prompts, vectors, {
      at: args.position,
      layers: args.layers,
      onProgress: (done) => update(done, prompts.length),
    }),
  );
  const { layers, best } = scoreSweep(model.tokenizer, items, swept);
  return {
    ...settingOf(model),
    vectors: vectors.origin,
    queries: prompts.map(({ text }, i) => ({ prompt: text, outputs: items[i]!.outputs })),
    unpatched: scoreTokens(model.tokenizer, items, swept.unpatched),
    layers,
    best,
    rowLayers: swept.rowLayers,
    plainRowLayers: swept.plainRowLayers,
  };
}

/** What is asked about: the lines of --queries, or items of the task. */
async function readItems({ task, split, queries, query }: Arguments): Promise<TaskItem[]> {
  if (task === undefined) return ofOption("--queries", () => readQueries(queries!));
  const read = await readTask(task);
  return ofOption("--task", async () => {
    const items = itemsIn(query, read, split);
    if (query === "image") await checkPictures(items);
    return items;
  });
}

/** A query a line. Throws XpatchError naming the first line that is not a prompt, a tab and an answer. */
async function readQueries(path: string): Promise<TaskItem[]> {
  const items: TaskItem[] = [];
  for (const [i, line] of (await readTextFile(path)).split(/\r?\n/).entries()) {
    if (line.trim() === "") continue;
    const [input = "", ...outputs] = line.split("\t").map(escapedText);
    if (input === "" || outputs.length === 0 || outputs.includes("")) {
      throw new XpatchError(`${path}: expected a prompt, a tab and an answer in line ${i + 1}`);
    }
    items.push({ input, outputs, split: "test" });
  }
  if (items.length === 0) throw new XpatchError(`${path}: expected a query a line, found none`);
  return items;
}

function formatSweep(report: SweepReport): string {
  const { vectors, queries, unpatched, best, rowLayers, plainRowLayers } = report;
  const row = (name: string, { accuracy, correct, total, distinct, constant }: Score) => [
    name,
    showPercent(accuracy),
    `${correct}/${total}`,
    `${distinct}`,
    showPercent(constant),
    `${bar(accuracy)}${name === `${best}` && correct > 0 ? " ← best" : ""}`,
  ];
  const rows = [
    ["layer", "accuracy", "correct", "distinct", "constant", ""],
    row("no patch", unpatched),
    ...report.layers.map((scored) => row(`${scored.layer}`, scored)),
  ];
  const share = showPercent(rowLayers / plainRowLayers);
  return [
    showSetting(report),
    "",
    `${queries.length} queries, one new token each; vectors: ${formatOrigin(vectors)}`,
    "",
    table(rows, [0, 1, 2, 3, 4]),
    "",
    "distinct: different answers given; constant: what the best of them would score, were it always given.",
    `Always giving the most frequent output has ${showPercent(unpatched.majority)}.`,
    `Rows × layers computed: ${rowLayers} of the ${plainRowLayers} that full passes take (${share}).`,
  ].join("\n");
}
