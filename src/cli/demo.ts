import type { Command } from "commander";
import type { Prompt } from "../model/prompt.ts";
import { set } from "../patching/edit.ts";
import { atLastExample, drawExamples, fewShotPrompt } from "../patching/few-shot.ts";
import type { Generated } from "../patching/generate.ts";
import type { PatchableModel } from "../patching/model.ts";
import { type Score, scoreAnswers } from "../patching/score.ts";
import { sweepLayers } from "../patching/sweep.ts";
import { itemsOf, type Task, type TaskItem } from "../patching/task.ts";
import { extractTaskVectors, type TaskVectors } from "../patching/task-vectors.ts";
import { wholeNumber } from "./arguments.ts";
import { type CommonArguments, newCommand } from "./command.ts";
import { formatDemo } from "./demo-text.ts";
import { printResult, withProgress } from "./output.ts";
import { type Setting, settingOf, withModel } from "./session.ts";
import { readTask, TASK_OPTION } from "./task-file.ts";

/** Most items of each part: the whole takes about a minute on two CPU cores. */
const EXTRACTION_ITEMS = 16;
const SWEEP_ITEMS = 24;
const TEST_ITEMS = 44;

/** Items whose answers are shown, and how many tokens of them. Scores count the first token only. */
const SHOWN_ITEMS = 8;
const SHOWN_TOKENS = 5;

/** Tokens of prompts, and prompts, in one pass: few, so that progress is seen. */
const BATCH_TOKENS = 256;
const BATCH_PROMPTS = 8;

interface Arguments extends CommonArguments {
  readonly task: string;
  readonly shots: number;
  readonly seed: number;
}

export interface DemoReport extends Setting {
  readonly task: string;
  readonly shots: number;
  readonly seed: number;
  /** How many prompts the vectors come from, and one of them. */
  readonly prompts: number;
  readonly prompt: string;
  /** Scores of the patch on validation items, by layer. */
  readonly sweep: readonly ({ readonly layer: number } & Score)[];
  /** The layer with the highest accuracy; of equals the first. */
  readonly best: number;
  /** Rows times layers that the sweep computed, and those of a full pass for every layer and query. */
  readonly rowLayers: number;
  readonly plainRowLayers: number;
  /** Scores on test items. */
  readonly noContext: Score;
  readonly prompted: Score;
  readonly patched: Score;
  readonly shown: readonly ShownItem[];
  readonly seconds: Seconds;
}

/** Answers to one test item, of some tokens. */
export interface ShownItem {
  readonly input: string;
  readonly expected: readonly string[];
  readonly noContext: string;
  readonly prompted: string;
  readonly patched: string;
}

/** Wall time of each part. */
export interface Seconds {
  readonly load: number;
  readonly extract: number;
  readonly sweep: number;
  readonly test: number;
}

export function demoCommand(): Command {
  return newCommand("demo", "Find a model's task vector and make it do the task without examples", [
    "demo ./smollm2",
    "demo ./smollm2 --task country-currency --seed 1 --json",
  ])
    .argument("<model>", "a folder, the URL of one, or a hub id")
    .option(...TASK_OPTION, "country-capital")
    .option("--shots <n>", "examples in a prompt", wholeNumber(1), 5)
    .option("--seed <n>", "draws the examples", wholeNumber(0), 0)
    .action(async (model: string, args: Arguments) => {
      const task = await readTask(args.task);
      const clock = stopwatch();
      const report = await withModel({ ...args, model }, (loaded) => demo(loaded, task, args, clock));
      printResult(report, args.json, formatDemo);
    });
}

/**
 * The experiment of Luo et al. 2025 (arXiv 2410.22330) in small, on text: task vectors from few-shot prompts of validation
 * items; the layer that works best on validation items; its vector in the bare queries of test items.
 */
async function demo(
  model: PatchableModel,
  task: Task,
  { shots, seed }: Arguments,
  clock: () => number,
): Promise<DemoReport> {
  const load = clock();
  const validation = itemsOf(task, "validation");
  const test = itemsOf(task, "test");
  const query = (item: TaskItem) => fewShotPrompt(model, [], item.input);
  const inContext = (item: TaskItem, pool: readonly TaskItem[]) =>
    fewShotPrompt(model, drawExamples(pool, item, { count: shots, seed }), item.input);

  const prompts = validation.slice(0, EXTRACTION_ITEMS).map((item) => inContext(item, validation));
  using vectors = await withProgress("extracting task vectors", async (update) => {
    const passes: Promise<void>[] = [];
    const onProgress = (done: number) => {
      passes.push(model.device.sync().then(() => update(done, prompts.length)));
    };
    const extracted = extractTaskVectors(model, prompts, {
      at: atLastExample,
      batchTokens: BATCH_TOKENS,
      onProgress,
    });
    await Promise.all(passes);
    return extracted;
  });
  const extract = clock();

  const tuned = validation.slice(0, SWEEP_ITEMS);
  const swept = await withProgress("sweeping over the layers", (update) =>
    sweepLayers(model, tuned.map(query), vectors, { onProgress: (done) => update(done, tuned.length) }),
  );
  const byLayer = swept.layers.map((layer, l) => ({ layer, ...score(model, tuned, swept.patched[l]!) }));
  const best = byLayer.reduce((a, b) => (b.correct > a.correct ? b : a)).layer;
  const sweep = clock();

  const tested = test.slice(0, TEST_ITEMS);
  const answers = await answerTest(
    model,
    tested.map(query),
    tested.map((item) => inContext(item, test)),
    vectors,
    best,
  );
  const seconds = { load, extract, sweep, test: clock() };

  return {
    ...settingOf(model, seed),
    task: task.name,
    shots,
    seed,
    prompts: prompts.length,
    prompt: prompts[0]!.text,
    sweep: byLayer,
    best,
    rowLayers: swept.rowLayers,
    plainRowLayers: swept.plainRowLayers,
    noContext: score(model, tested, answers.unpatched),
    prompted: score(model, tested, answers.prompted),
    patched: score(model, tested, answers.patched),
    shown: answers.shown.map((texts, i) => ({
      input: tested[i]!.input,
      expected: tested[i]!.outputs,
      ...texts,
    })),
    seconds,
  };
}

/** The next token of every query in three ways, and the first few answers at more length. */
async function answerTest(
  model: PatchableModel,
  queries: readonly Prompt[],
  contexts: readonly Prompt[],
  vectors: TaskVectors,
  layer: number,
) {
  return withProgress("answering test questions", async (update) => {
    const { unpatched, patched } = await sweepLayers(model, queries, vectors, { layers: [layer] });

    const few = queries.slice(0, SHOWN_ITEMS);
    const edits = few.map((_, i) =>
      set(`${vectors.origin.site}.${layer}`, -1, vectors.at(layer), { prompt: few.length + i }),
    );
    const both = await model.generate([...few, ...few], { edits, maxNewTokens: SHOWN_TOKENS });

    const prompted: Generated[] = [];
    for (let i = 0; i < contexts.length; i += BATCH_PROMPTS) {
      const maxNewTokens = i < SHOWN_ITEMS ? SHOWN_TOKENS : 1;
      prompted.push(...(await model.generate(contexts.slice(i, i + BATCH_PROMPTS), { maxNewTokens })));
      update(prompted.length, contexts.length);
    }
    return {
      unpatched,
      patched: patched[0]!,
      prompted: prompted.map(({ ids }) => ids[0]!),
      shown: few.map((_, i) => ({
        noContext: firstLine(both[i]!),
        prompted: firstLine(prompted[i]!),
        patched: firstLine(both[few.length + i]!),
      })),
    };
  });
}

/** Scores answers of one token. */
function score(model: PatchableModel, items: readonly TaskItem[], ids: readonly number[]): Score {
  const answers = ids.map((id) => model.tokenizer.decode([id], { skipSpecial: true }));
  return scoreAnswers(items, answers);
}

function firstLine({ text }: Generated): string {
  return text.trim().split("\n")[0]!;
}

/** A function that returns the seconds since its last call. */
function stopwatch(): () => number {
  let last = performance.now();
  return () => {
    const now = performance.now();
    const seconds = (now - last) / 1000;
    last = now;
    return seconds;
  };
}
