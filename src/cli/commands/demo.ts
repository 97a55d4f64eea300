import type { Command } from "commander";
import type { LayerChoice } from "../../analysis/vectors/layer-choice.ts";
import { relatedTasks } from "../../analysis/vectors/switch.ts";
import type { TaskVectors } from "../../analysis/vectors/task-vectors.ts";
import { Transfer, type TransferTest } from "../../analysis/vectors/transfer.ts";
import type { ModelOutline } from "../../model/language-model.ts";
import type { PatchableModel } from "../../patching/model.ts";
import { type Setting, settingOf } from "../../patching/setting.ts";
import { writeWhole } from "../../platform/node-write.ts";
import { visionOf } from "../../tasks/pictures.ts";
import {
  itemsIn,
  MODALITIES,
  type Modality,
  type SpecificationKind,
  taskSource,
  type VectorSource,
} from "../../tasks/specification.ts";
import type { Task } from "../../tasks/task.ts";
import { choice } from "../options/arguments.ts";
import { checkLengths, checkPictures, checkWritable, ofOption } from "../options/checks.ts";
import { newCommand } from "../options/command.ts";
import {
  addModelArgument,
  addReadOptions,
  givenModel,
  type ModelArguments,
  withModel,
} from "../options/session.ts";
import { readShippedTasks, readTask, TASK_OPTION } from "../options/task-file.ts";
import {
  addDrawOptions,
  addStackOption,
  checkDraw,
  checkStack,
  type DrawArguments,
  refuseExamples,
  type StackArguments,
  streamOf,
} from "../options/task-options.ts";
import { printResult } from "../terminal/output.ts";
import { withProgress } from "../terminal/progress.ts";
import { demoPage } from "./demo-page.ts";
import { formatDemo } from "./demo-text.ts";
import { extractVectors } from "./extraction.ts";

/** Most items of each part: the whole takes a minute or two on two CPU cores. */
const EXTRACTION_ITEMS = 12;
const SWEEP_ITEMS = 20;
const TEST_ITEMS = 28;

/** Other tasks whose vectors are tried on the same questions, and the items that those come from. */
const OTHER_TASKS = 2;
const OTHER_ITEMS = 5;

/** Items whose answers are shown, and how many tokens of them. Scores count the first token only. */
const SHOWN_ITEMS = 6;
const SHOWN_TOKENS = 5;

interface Arguments extends ModelArguments, DrawArguments, StackArguments {
  readonly task: string;
  readonly query?: Modality;
  readonly html?: string;
}

export interface DemoReport extends Setting, TransferTest {
  readonly task: string;
  readonly specification: SpecificationKind;
  readonly query: Modality;
  readonly shots: number;
  readonly seed: number;
  /** How many prompts the vectors come from, and one of them; the bare question about a test item. */
  readonly prompts: number;
  readonly prompt: string;
  readonly readAt: ReadAt;
  readonly question: string;
  /** Scores of the patch on validation items, by layer. */
  readonly sweep: LayerChoice;
  readonly seconds: Seconds;
  /** The page that was written. */
  readonly html?: string;
}

/**
 * Where the vectors of examples are read: at the last one's answer cue with the question behind it, or at the end of prompts
 * that end there; with an encoder, at the end of what that reads, or of what the decoder does.
 */
export type ReadAt = "answer cue" | "end" | "encoder's end" | "decoder's end";

/** Wall time of each part. */
export interface Seconds {
  readonly load: number;
  readonly extract: number;
  readonly sweep: number;
  readonly test: number;
}

export function demoCommand(): Command {
  const command = newCommand("demo", "Find a model's task vector and make it do the task without examples", [
    "demo",
    "demo --task animal-young --spec image --html young.html",
    "demo xpatch:smollm2 --task country-currency --seed 1 --json",
  ]);
  addReadOptions(addModelArgument(command))
    .option(...TASK_OPTION, "country-capital")
    .addOption(
      choice(
        "--query <kind>",
        "what is asked about, names or pictures (default: image if the model takes any)",
        MODALITIES,
      ),
    );
  return addStackOption(addDrawOptions(command))
    .option("--html <file>", "also write the report as a page with the pictures")
    .action(async (model: string | undefined, args: Arguments) => {
      const named = givenModel(model, args, command);
      refuseExamples(command, args);
      const task = await readTask(args.task);
      if (args.html !== undefined) await checkWritable("--html", args.html);
      await checkTask(task, args);
      const clock = stopwatch();
      const prepare = (outline: ModelOutline) => sourceOf(outline, task, args);
      const report = await withModel(named, prepare, async (loaded, source) => {
        const found = await demo(loaded, task, source, args, clock);
        if (args.html !== undefined) await writeWhole(args.html, await demoPage(found, loaded));
        return found;
      });
      printResult(report, args.json, formatDemo);
    });
}

/** Throws XpatchError where a task lacks what the arguments ask of it. */
async function checkTask(
  task: Task,
  { query = "text", ...args }: Pick<Arguments, "query" | "spec" | "shots">,
) {
  await ofOption("--task", async () => {
    for (const split of ["validation", "test"] as const) {
      const asked = itemsIn(query, task, split);
      if (query === "image") await checkPictures(asked);
    }
  });
  for (const split of ["validation", "test"] as const) await checkDraw(task, split, args);
}

/** What the vectors come from. Checks besides that the model and the task have what the questions need. */
async function sourceOf(model: ModelOutline, task: Task, args: Arguments): Promise<VectorSource> {
  const { spec: kind, shots: count, seed } = args;
  const query = queryOf(model, args);
  if (query === "image") visionOf(model);
  await checkStack(model, args);
  await checkTask(task, { ...args, query });
  const source = await taskSource(model, task, "validation", { kind, count, seed, items: EXTRACTION_ITEMS });
  checkLengths(model, source.prompts);
  return source;
}

function queryOf({ config }: ModelOutline, { query }: Arguments): Modality {
  return query ?? (config.vision ? "image" : "text");
}

/** A task's vectors, a layer, and the test questions under that layer's vector; see `Transfer`. */
async function demo(
  model: PatchableModel,
  task: Task,
  source: VectorSource,
  args: Arguments,
  clock: () => number,
): Promise<DemoReport> {
  const { spec: kind, shots, seed, html } = args;
  const query = queryOf(model, args);
  const given = { kind, count: shots, seed };
  const transfer = await Transfer.open(model, task, {
    ...given,
    query,
    sweepItems: SWEEP_ITEMS,
    testItems: TEST_ITEMS,
  });
  const load = clock();

  const site = streamOf(args);
  using vectors = await extractVectors(model, source, { site });
  const extract = clock();

  const sweep = await withProgress("sweeping over the layers", (update) => transfer.sweep(vectors, update));
  const swept = clock();

  const related = relatedTasks(task.name, transfer.tested, await readShippedTasks(), OTHER_TASKS);
  const others: { task: Task; vectors: TaskVectors }[] = [];
  let tested: TransferTest;
  try {
    for (const other of related) {
      const from = await taskSource(model, other, "validation", { ...given, items: OTHER_ITEMS });
      others.push({
        task: other,
        vectors: await extractVectors(model, from, { site, layers: [sweep.best] }),
      });
    }
    tested = await withProgress("asking test questions", (onProgress) =>
      transfer.test(vectors, sweep.best, {
        others,
        shown: SHOWN_ITEMS,
        shownTokens: SHOWN_TOKENS,
        onProgress,
      }),
    );
  } finally {
    for (const other of others) other.vectors.dispose();
  }

  return {
    ...settingOf(model, seed),
    task: task.name,
    specification: kind,
    query,
    shots,
    seed,
    prompts: source.prompts.length,
    readAt: readAtOf(model, source, args),
    prompt: source.prompts[0]!.text,
    question: transfer.query(transfer.tested[0]!).text,
    sweep,
    ...tested,
    seconds: { load, extract, sweep: swept, test: clock() },
    ...(html !== undefined && { html }),
  };
}

function readAtOf({ config }: ModelOutline, { at }: VectorSource, { stack }: Arguments): ReadAt {
  if (config.encoder) return `${stack}'s end`;
  return at === -1 ? "end" : "answer cue";
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
