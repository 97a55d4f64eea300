import { existsSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { type Command, Option } from "commander";
import { FolderLock } from "#experiments/index";
import { CheckpointError } from "../../errors.ts";
import type { ModelOutline } from "../../model/language-model.ts";
import type { Prompt } from "../../model/prompt/prompt.ts";
import { type Asker, answeredPrompt, drawExamples, exampleOf, fewShotPrompt } from "../../tasks/few-shot.ts";
import { askerIn, itemsIn, MODALITIES, type Modality } from "../../tasks/specification.ts";
import type { Task, TaskItem } from "../../tasks/task.ts";
import { checkModules } from "../../training/lora.ts";
import { choice, number, positiveNumber, wholeNumber } from "../options/arguments.ts";
import { checkLayerOption, checkLengths, checkPictures, ofOption } from "../options/checks.ts";
import { newCommand, refuseUnused } from "../options/command.ts";
import { addBareModelOptions, type ModelArguments, withModel } from "../options/session.ts";
import { readTask } from "../options/task-file.ts";
import { addTaskOptions, type TaskArguments } from "../options/task-options.ts";
import { stoppable } from "../terminal/interrupt.ts";
import { printResult } from "../terminal/output.ts";
import { CHECKPOINT, checkKept, formatTraining, train } from "./training.ts";
import { isTrainingLog, LOG } from "./training-log.ts";

export interface TrainArguments extends Omit<ModelArguments, "lora">, TaskArguments {
  readonly task: string;
  readonly out: string;
  /** Ends of the names of linear layers, or all of them. */
  readonly lora: readonly string[] | "all-linear";
  readonly rank: number;
  readonly alpha?: number;
  /** The layer of a steering vector, in place of an adapter. */
  readonly steering?: number;
  readonly query: Modality;
  readonly shots: number;
  readonly seed: number;
  readonly steps: number;
  readonly batch: number;
  readonly microBatch?: number;
  readonly lr: number;
  readonly warmUp: number;
  readonly weightDecay: number;
  readonly maxGradNorm: number;
}

/** What is trained on, and what is held out. */
export interface TrainingData {
  readonly task: string;
  /** With their answers. */
  readonly prompts: readonly Prompt[];
  readonly tested: readonly TaskItem[];
  /** Without answers. */
  readonly queries: readonly Prompt[];
}

/** The split that is scored before and after. */
const HELD_OUT = "test";

export function trainCommand(): Command {
  const command = addBareModelOptions(
    newCommand("train", "Train a LoRA adapter, or a steering vector, on a task's items", [
      "train --model xpatch:smollm2 --task country-capital --steps 100 --out capital-lora",
      "train --model xpatch:smollm2 --task country-capital --lora all-linear --rank 4 --shots 2 --out capital-lora",
      "train --task animal-young --query image --steering 20 --lr 0.05 --out young-vector",
    ]),
  )
    .requiredOption(
      "--out <folder>",
      "what is trained goes there, and while it is, a checkpoint to go on from",
    )
    .option(
      "--lora <modules>",
      'which linear layers get an adapter, by the ends of their names, or "all-linear"',
      modules,
      ["q_proj", "v_proj"],
    )
    .option("--rank <n>", "of the adapter", wholeNumber(1), 8)
    .option(
      "--alpha <a>",
      "what the adapter adds is alpha / rank of B A (default: twice the rank)",
      positiveNumber(),
    )
    .option(
      "--steering <layer>",
      "instead: one vector, added at that layer's resid_post to a question's last token",
      wholeNumber(0),
    );
  return addTaskOptions(command, "train")
    .addOption(
      choice("--query <kind>", "whether questions are names or pictures", MODALITIES).default("text"),
    )
    .option("--shots <n>", "examples as text before each question, from the other items", wholeNumber(0), 0)
    .option(
      "--seed <n>",
      "seed of the order of items, of examples, and of what the adapter starts from",
      wholeNumber(0),
      0,
    )
    .option("--steps <n>", "how often the parameters change", wholeNumber(1), 100)
    .option("--batch <n>", "prompts in a step", wholeNumber(1), 8)
    .option(
      "--micro-batch <n>",
      "prompts that go through the model at a time (default: all of a step)",
      wholeNumber(1),
    )
    .option("--lr <rate>", "largest learning rate; it falls to 0 by a cosine", positiveNumber(), 1e-3)
    .addOption(
      new Option("--warm-up <n>", "steps in which it rises from 0").argParser(wholeNumber(0)).default(10),
    )
    .option("--weight-decay <w>", "of AdamW", number, 0.01)
    .option("--max-grad-norm <norm>", "longer gradients are scaled down to it", positiveNumber(), 1)
    .action(async (args: TrainArguments) => {
      if (args.task === undefined) command.error("error: expected --task, what to train on");
      if (args.split === HELD_OUT) {
        command.error(`error: --split ${HELD_OUT}: those items are held out, to be scored before and after`);
      }
      if (args.warmUp >= args.steps) {
        command.error(
          `error: expected fewer steps to --warm-up in (${args.warmUp}) than --steps (${args.steps})`,
        );
      }
      if (args.steering !== undefined)
        refuseUnused(command, ["lora", "rank", "alpha"], "an adapter, not --steering,");
      const task = await readTask(args.task);
      await checkItems(task, args);
      const kept = () => existsSync(join(args.out, CHECKPOINT));
      const report = await stoppable(
        () => (kept() ? "the same command goes on from the last step" : undefined),
        async () => {
          using lock = FolderLock.take(args.out);
          await checkFolder(args.out);
          return await withModel(
            { ...args, lora: [] },
            async (model) => {
              const data = await prepare(model, task, args);
              if (kept()) await checkKept(data, args);
              return data;
            },
            (model, data) => train(model, data, args, { lock, kept }),
          );
        },
      );
      printResult(report, args.json, formatTraining);
    });
}

/** `q_proj,v_proj` */
function modules(text: string): readonly string[] | "all-linear" {
  return text === "all-linear" ? text : text.split(",").map((name) => name.trim());
}

async function checkItems(task: Task, { split, query, shots }: TrainArguments): Promise<void> {
  for (const part of [split, HELD_OUT] as const) {
    const items = await ofOption("--task", () => itemsIn(query, task, part));
    if (query === "image") await ofOption("--task", () => checkPictures(items));
    await ofOption("--shots", () => drawExamples(items, items[0]!, { count: shots }));
  }
}

/** Throws CheckpointError for a folder that has something in it, but no checkpoint to go on from. */
async function checkFolder(folder: string): Promise<void> {
  const present = await readdir(folder);
  if (present.includes(CHECKPOINT)) return;
  // A training that was broken off before its first checkpoint leaves the beginning of a log.
  const begun = present.includes(LOG) && (await isTrainingLog(join(folder, LOG)));
  const others = present.filter(
    (name) => name !== "lock" && !name.endsWith(".tmp") && !(begun && name === LOG),
  );
  if (others.length === 0) return;
  throw new CheckpointError(
    `--out: ${folder}: expected an empty folder, or one with ${CHECKPOINT} to go on from, found ${others.slice(0, 3).join(", ")}`,
  );
}

async function prepare(model: ModelOutline, task: Task, args: TrainArguments): Promise<TrainingData> {
  const { split, query, steering } = args;
  if (steering !== undefined) await ofOption("--steering", () => checkLayerOption(model, [steering]));
  else checkModules("--lora", model.matrixNames, args.lora);
  const [items, tested] = [itemsIn(query, task, split), itemsIn(query, task, HELD_OUT)];
  const asked: Asker = await askerIn(query, model, [...items, ...tested]);
  const shown = (item: TaskItem, pool: readonly TaskItem[]) =>
    drawExamples(pool, item, { count: args.shots, seed: args.seed });
  const prompts = items.map((item) =>
    answeredPrompt(model, shown(item, items), exampleOf(item, asked), args.template),
  );
  const queries = tested.map((item) => fewShotPrompt(model, shown(item, tested), asked(item), args.template));
  checkLengths(model, [...prompts, ...queries]);
  return { task: task.name, prompts, tested, queries };
}
