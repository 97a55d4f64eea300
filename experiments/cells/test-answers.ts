import type { Prompt, PromptImage, Task, TaskItem } from "xpatch";
import { type Cell, defineCell } from "../framework/cell.ts";
import { constantAnswers } from "../framework/constants.ts";
import { aboveControl } from "../framework/contrasts.ts";
import type { Lab } from "../framework/lab.ts";
import { queries, seedsOf, specifiedQueries } from "../framework/prompts.ts";
import type { Contrast } from "../framework/rule.ts";
import { type Answered, answered, taskHits } from "../framework/scored.ts";
import type { Hits } from "../statistics/accuracy.ts";
import { meanOf, randomLike } from "../statistics/vectors.ts";
import {
  chosenLayer,
  layerSweep,
  llmLayerSweep,
  patchAt,
  type Setup,
  type Sweep,
  tasksWith,
} from "./layer-sweep.ts";
import { type Source, vectorsOf } from "./task-vectors.ts";

/** Vectors that are put in place of the task's own; none of them knows the task. */
export const CONTROLS = ["anotherTask", "meanOfTasks", "random"] as const;

export type Control = (typeof CONTROLS)[number];

export const CONTROL_NAMES: Readonly<Record<Control, string>> = {
  anotherTask: "another task's vector",
  meanOfTasks: "mean of the tasks' vectors",
  random: "random vector of the same norm",
};

export interface TestPatchResult {
  /** The layer that validation items chose. */
  readonly layer: number;
  readonly queries: readonly string[];
  readonly noContext: Answered;
  /** By seed. */
  readonly patched: readonly Answered[];
  /** With a single task there is no other one, and no mean that differs. */
  readonly controls: Readonly<Partial<Record<Control, Answered>>>;
}

/** The test items of a task, patched in the chosen layer with its own vectors and with those of the controls. */
export const testPatch = defineCell("test-patch", (lab, params: Setup & { task: string }) =>
  patchTestItems(lab, params, "model", layerSweep),
);

/** The same with vectors of the language model that the model was fine-tuned from, in the layer that suits these. */
export const llmTestPatch = defineCell("llm-test-patch", (lab, params: Setup & { task: string }) =>
  patchTestItems(lab, params, "llm", llmLayerSweep),
);

/** Some items and their bare queries. */
export interface AskedItems {
  readonly items: readonly TaskItem[];
  readonly bare: readonly Prompt<PromptImage>[];
}

/** @param asked - Which test items, and how they are asked about; all, as the setup says, unless given. */
export async function patchTestItems(
  lab: Lab,
  { task: name, ...setup }: Setup & { task: string },
  source: Source,
  sweep: Sweep,
  asked?: AskedItems,
): Promise<TestPatchResult> {
  const task = lab.task(name);
  const items = asked?.items ?? lab.items(task, "test");
  const bare = asked?.bare ?? (await queries(lab, task, "test", setup.query));
  const layer = chosenLayer(lab, setup, task, sweep);
  const vectorOf = async (of: string, seed: number) => {
    const { specification } = setup;
    return (await vectorsOf(lab, { source, task: of, specification, seed }))[layer]!;
  };
  const own: Float32Array[] = [];
  for (const seed of seedsOf(lab, setup.specification)) own.push(await vectorOf(name, seed));
  const ofTasks: { task: string; vector: Float32Array }[] = [];
  for (const { name: other } of tasksWith(lab, setup)) {
    ofTasks.push({ task: other, vector: await vectorOf(other, 0) });
  }
  const controls = controlVectors(ofTasks, name, layer);
  const edits = [...own, ...controls.map(({ vector }) => vector)].map((vector) => patchAt(layer, vector));
  const { unpatched, patched } = await lab.patchEach(bare, edits);
  const scores = patched.map((answers) => answered(lab.model.tokenizer, items, answers));
  return {
    layer,
    queries: bare.map(({ text }) => text),
    noContext: answered(lab.model.tokenizer, items, unpatched),
    patched: scores.slice(0, own.length),
    controls: Object.fromEntries(controls.map(({ control }, i) => [control, scores[own.length + i]!])),
  };
}

/** The results of {@link testPatch} or its like for some tasks, and the items asked about. */
export interface TestedTask {
  readonly task: Task;
  readonly items: readonly TaskItem[];
  readonly result: TestPatchResult;
}

/** What {@link testPatch} found for some tasks. */
export function testedTasks(
  lab: Lab,
  tasks: readonly Task[],
  setup: Setup,
  cell: (params: Setup & { task: string }) => Cell<TestPatchResult> = testPatch,
): TestedTask[] {
  return tasks.map((task) => ({
    task,
    items: lab.items(task, "test"),
    result: lab.result(cell({ ...setup, task: task.name })),
  }));
}

/** Right and wrong answers to the bare queries. */
export function bareHits(tested: readonly TestedTask[]): Hits {
  return tested.map(({ items, result }) => taskHits(items, [result.noContext]));
}

export function patchedHits(tested: readonly TestedTask[]): Hits {
  return tested.map(({ items, result }) => taskHits(items, result.patched));
}

/** Right and wrong answers under a control; undefined where it is not there for all. */
export function controlHits(tested: readonly TestedTask[], control: Control): Hits | undefined {
  const scores = tested.map(({ result }) => result.controls[control]);
  return scores.every((score) => score !== undefined)
    ? tested.map(({ items }, t) => taskHits(items, [scores[t]!]))
    : undefined;
}

/** How far the patch is above all that does not know the task: what a claim that a vector works rests on. */
export function aboveAllControls(
  tested: readonly TestedTask[],
): Record<"noContext" | Control | "frequent" | "constant", Contrast[]> {
  const patched = patchedHits(tested);
  const { frequent, constant } = constantAnswers(
    tested.map(({ task, items, result }) => ({
      task,
      items,
      answers: result.patched.flatMap(({ answers }) => answers),
    })),
  );
  const above = (control: Hits | undefined) => aboveControl(patched, control);
  return {
    noContext: above(bareHits(tested)),
    anotherTask: above(controlHits(tested, "anotherTask")),
    meanOfTasks: above(controlHits(tested, "meanOfTasks")),
    random: above(controlHits(tested, "random")),
    frequent: above(frequent),
    constant: above(constant),
  };
}

export interface TestPromptResult extends Answered {
  readonly prompts: readonly string[];
}

/** The test items of a task behind their specification: the few-shot prompt, or the instruction. */
export const testPrompt = defineCell(
  "test-prompt",
  async (
    lab,
    { task: name, specification, query, seed }: Setup & { task: string; seed: number },
  ): Promise<TestPromptResult> => {
    const task = lab.task(name);
    const prompts = await specifiedQueries(lab, task, { split: "test", specification, query, seed });
    const answers = await lab.answers(prompts);
    return {
      ...answered(lab.model.tokenizer, lab.items(task, "test"), answers),
      prompts: prompts.map(({ text }) => text),
    };
  },
);

function controlVectors(
  ofTasks: readonly { task: string; vector: Float32Array }[],
  task: string,
  seed: number,
): { control: Control; vector: Float32Array }[] {
  const index = ofTasks.findIndex((other) => other.task === task);
  const own = ofTasks[index]!.vector;
  const random = { control: "random" as const, vector: randomLike(own, seed) };
  if (ofTasks.length === 1) return [random];
  return [
    { control: "anotherTask", vector: ofTasks[(index + 1) % ofTasks.length]!.vector },
    { control: "meanOfTasks", vector: meanOf(ofTasks.map(({ vector }) => vector)) },
    random,
  ];
}
