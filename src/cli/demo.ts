import type { Command } from "commander";
import { set } from "../patching/edit.ts";
import { atLastExample, drawExamples, fewShotPrompt } from "../patching/few-shot.ts";
import type { PatchableModel } from "../patching/model.ts";
import { type Score, scoreAnswers } from "../patching/score.ts";
import { sweepLayers } from "../patching/sweep.ts";
import { extractTaskVectors, type TaskVectors } from "../patching/task-vectors.ts";
import { itemsOf, type Task, type TaskItem } from "../patching/task.ts";
import { wholeNumber } from "./arguments.ts";
import { type CommonArguments, newCommand } from "./command.ts";
import { formatDemo } from "./demo-text.ts";
import { printResult, withProgress } from "./output.ts";
import { type Setting, settingOf, withModel } from "./session.ts";
import { readTask, TASK_OPTION } from "./task-file.ts";

/** Sizes that keep the whole within a minute or so on two CPU cores. */
const EXTRACTION_ITEMS = 20;
const SWEEP_ITEMS = 24;
const TEST_ITEMS = 40;
const SHOWN_ITEMS = 6;
const SHOWN_TOKENS = 5;

/** Prompts answered at a time, so that progress is seen. */
const BATCH = 8;

interface Arguments extends CommonArguments {
  readonly task: string;
  readonly shots: number;
  readonly seed: number;
}

export interface DemoReport extends Setting {
  readonly task: string;
  readonly seed: number;
  readonly shots: number;
  /** One of the prompts that the vectors come from, and how many there were. */
  readonly prompt: string;
  readonly prompts: number;
  /** Scores on validation items, by layer. */
  readonly sweep: readonly Score[];
  readonly rowLayers: number;
  readonly plainRowLayers: number;
  readonly bestLayer: number;
  /** Scores on test items, one new token each. */
  readonly noContext: Score;
  readonly prompted: Score;
  readonly patched: Score;
  readonly shown: readonly ShownItem[];
  readonly seconds: Readonly<Record<"load" | "extract" | "sweep" | "test" | "total", number>>;
}

/** Answers of some tokens, for people to look at. */
export interface ShownItem {
  readonly input: string;
  readonly expected: string;
  readonly noContext: string;
  readonly prompted: string;
  readonly patched: string;
}

export function demoCommand(): Command {
  return newCommand("demo", "Find a task vector in a model and make it do the task", [
    "demo ./smollm2",
    "demo ./smollm2 --task country-currency --seed 1 --json",
  ])
    .argument("<model>", "a folder, the URL of one, or a hub id")
    .option(...TASK_OPTION, "country-capital")
    .option("--shots <n>", "examples in a prompt", wholeNumber(1), 5)
    .option("--seed <n>", "of the choice of examples", wholeNumber(0), 0)
    .action(async (model: string, args: Arguments) => {
      const task = await readTask(args.task);
      const started = performance.now();
      const report = await withModel({ ...args, model }, (loaded) => demo(loaded, task, args, started));
      printResult(report, args.json, formatDemo);
    });
}

/**
 * The experiment of Luo et al. 2025 in small, on text: task vectors from few-shot prompts of validation items, the layer
 * that works best on validation items, and its vector in zero-shot queries of test items.
 */
async function demo(
  model: PatchableModel,
  task: Task,
  { shots, seed }: Arguments,
  started: number,
): Promise<DemoReport> {
  const clock = stopwatch(started);
  const load = clock();
  const validation = itemsOf(task, "validation");
  const test = itemsOf(task, "test");
  const promptOf = (item: TaskItem, pool: readonly TaskItem[]) =>
    fewShotPrompt(model, drawExamples(pool, item, { count: shots, seed }), item.input);
  const queryOf = (item: TaskItem) => fewShotPrompt(model, [], item.input);

  const prompts = validation.slice(0, EXTRACTION_ITEMS).map((item) => promptOf(item, validation));
  using vectors = await withProgress("task vectors from few-shot prompts", async (update) => {
    const extracted = extractTaskVectors(model, prompts, { at: atLastExample });
    update(1, 2);
    await model.device.sync();
    return extracted;
  });
  const extract = clock();

  const tuned = validation.slice(0, SWEEP_ITEMS);
  const swept = await withProgress("the vector of each layer, patched into queries", (update) =>
    sweepLayers(model, tuned.map(queryOf), vectors, { onProgress: (done) => update(done, tuned.length) }),
  );
  const sweep = swept.patched.map((ids) => scoreAnswers(tuned, texts(model, ids)));
  const bestIndex = sweep.reduce((best, { correct }, i) => (correct > sweep[best]!.correct ? i : best), 0);
  const bestLayer = swept.layers[bestIndex]!;
  const sweepSeconds = clock();

  const tested = test.slice(0, TEST_ITEMS);
  const queries = tested.map(queryOf);
  const contexts = tested.map((item) => promptOf(item, test));
  const best = await sweepLayers(model, queries, vectors, { layers: [bestLayer] });
  const prompted = await withProgress("few-shot prompts for comparison", async (update) => {
    const answers: string[] = [];
    for (let i = 0; i < contexts.length; i += BATCH) {
      const batch = await model.generate(contexts.slice(i, i + BATCH), { maxNewTokens: 1 });
      answers.push(...batch.map(({ text }) => text));
      update(answers.length, contexts.length);
    }
    return answers;
  });
  const shown = await showSome(model, tested, queries, contexts, vectors, bestLayer);
  const testSeconds = clock();

  return {
    ...settingOf(model, seed),
    seed,
    task: task.name,
    shots,
    prompt: prompts[0]!.text,
    prompts: prompts.length,
    sweep,
    rowLayers: swept.rowLayers,
    plainRowLayers: swept.plainRowLayers,
    bestLayer,
    noContext: scoreAnswers(tested, texts(model, best.unpatched)),
    prompted: scoreAnswers(tested, prompted),
    patched: scoreAnswers(tested, texts(model, best.patched[0]!)),
    shown,
    seconds: {
      load,
      extract,
      sweep: sweepSeconds,
      test: testSeconds,
      total: load + extract + sweepSeconds + testSeconds,
    },
  };
}
