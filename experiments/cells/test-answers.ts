import { type Prompt, type PromptImage, relatedTasks, type Task, type TaskItem } from "xpatch";
import { type Cell, defineCell } from "../framework/cell.ts";
import { type AskedTask, constantAnswers } from "../framework/constants.ts";
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
import {
  OTHER_TEMPLATE,
  type PromptVariant,
  type Source,
  variantVectors,
  vectorsOf,
} from "./task-vectors.ts";

/**
 * Vectors that are put in place of the task's own. The first four know nothing of the task, examples with permuted answers
 * know what is asked about and what answers look like, those with another template know the task.
 */
export const CONTROLS = [
  "nearestTask",
  "anotherTask",
  "meanOfTasks",
  "random",
  "permutedAnswers",
  "otherTemplate",
] as const;

export type Control = (typeof CONTROLS)[number];

export const CONTROL_NAMES: Readonly<Record<Control, string>> = {
  nearestTask: "vector of the nearest task",
  anotherTask: "another task's vector",
  meanOfTasks: "mean of the tasks' vectors",
  random: "random vector of the same norm",
  permutedAnswers: "vector of examples with permuted answers",
  otherTemplate: "vector of examples in another template",
};

/** Controls that are of other prompts for the same task: of text examples, which the claims rest on. */
function otherPrompts(lab: Lab, source: Source, own = lab.options.template) {
  const permuted = {
    control: "permutedAnswers",
    variant: "permuted-answers",
    seeds: seedsOf(lab, "text"),
  } as const;
  const template = { control: "otherTemplate", variant: "other-template", seeds: [0] } as const;
  const isOther = own !== OTHER_TEMPLATE && source === "model" && canWrite(lab, OTHER_TEMPLATE);
  return isOther ? [permuted, template] : [permuted];
}

/** Whether the model has tokens for a text. */
function canWrite({ model: { tokenizer } }: Lab, text: string): boolean {
  const written = tokenizer.decode(tokenizer.encode(text, { specials: false }));
  return written.replaceAll(/\s/g, "") === text.replaceAll(/\s/g, "");
}

/** The vectors of those prompts. */
export function controlCells(lab: Lab, task: string, source: Source = "model"): Cell<unknown>[] {
  return otherPrompts(lab, source).flatMap(({ variant, seeds }) =>
    seeds.map((seed) => variantVectors({ source, task, specification: "text", seed, variant })),
  );
}

export interface TestPatchResult {
  /** The layer that validation items chose. */
  readonly layer: number;
  readonly queries: readonly string[];
  readonly noContext: Answered;
  /** By seed. */
  readonly patched: readonly Answered[];
  /** By seed. With a single task there is no other one, and no mean that differs. */
  readonly controls: Readonly<Partial<Record<Control, readonly Answered[]>>>;
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
  const bare = asked?.bare ?? (await queries(lab, task, "test", setup.query, setup.template));
  const layer = chosenLayer(lab, setup, task, sweep);
  const { specification, template } = setup;
  const vectorOf = async (of: string, seed: number, variant?: PromptVariant) =>
    (await vectorsOf(lab, { source, task: of, specification, seed, template }, variant))[layer]!;
  const groups: { name: "own" | Control; vectors: Float32Array[] }[] = [{ name: "own", vectors: [] }];
  for (const seed of seedsOf(lab, specification)) groups[0]!.vectors.push(await vectorOf(name, seed));
  const ofTasks = new Map<Task, Float32Array>();
  for (const other of tasksWith(lab, setup)) ofTasks.set(other, await vectorOf(other.name, 0));
  groups.push(...otherVectors(lab, task, ofTasks, layer));
  for (const { control, variant, seeds } of specification === "text"
    ? otherPrompts(lab, source, template)
    : []) {
    const vectors: Float32Array[] = [];
    for (const seed of seeds) vectors.push(await vectorOf(name, seed, variant));
    groups.push({ name: control, vectors });
  }
  const edits = groups.flatMap(({ vectors }) => vectors.map((vector) => patchAt(lab, layer, vector)));
  const { unpatched, patched } = await lab.patchEach(bare, edits);
  const scores = patched.map((answers) => answered(lab.model.tokenizer, items, answers, lab.options));
  const byGroup = groups.map(({ name, vectors }) => [name, scores.splice(0, vectors.length)] as const);
  const [[, own], ...controls] = byGroup as [(typeof byGroup)[number], ...typeof byGroup];
  return {
    layer,
    queries: bare.map(({ text }) => text),
    noContext: answered(lab.model.tokenizer, items, unpatched, lab.options),
    patched: own,
    controls: Object.fromEntries(controls),
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
    ? tested.map(({ items }, t) => taskHits(items, scores[t]!))
    : undefined;
}

/** What was asked about, and answered under the patch: what constant answers are chosen from. */
export function askedUnderPatch(tested: readonly TestedTask[]): AskedTask[] {
  return tested.map(({ task, items, result }) => ({
    task,
    items,
    answers: result.patched.flatMap(({ answers }) => answers),
  }));
}

/** How far the patch is above constant answers and every control: what a claim that a vector works rests on. */
export function aboveAllControls(
  { options }: Lab,
  tested: readonly TestedTask[],
): Record<"noContext" | Control | "frequent" | "constant", Contrast[]> {
  const patched = patchedHits(tested);
  const { frequent, constant } = constantAnswers(askedUnderPatch(tested), options);
  const above = (control: Hits | undefined) => aboveControl(patched, control);
  const controls = CONTROLS.map((control) => [control, above(controlHits(tested, control))] as const);
  return {
    noContext: above(bareHits(tested)),
    ...(Object.fromEntries(controls) as Record<Control, Contrast[]>),
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
    { task: name, ...asked }: Setup & { task: string; seed: number },
  ): Promise<TestPromptResult> => {
    const task = lab.task(name);
    const prompts = await specifiedQueries(lab, task, { split: "test", ...asked });
    const answers = await lab.answers(prompts);
    return {
      ...answered(lab.model.tokenizer, lab.items(task, "test"), answers, lab.options),
      prompts: prompts.map(({ text }) => text),
    };
  },
);

/** The vectors of other tasks, their mean, and a random one. */
function otherVectors(
  lab: Lab,
  task: Task,
  ofTasks: ReadonlyMap<Task, Float32Array>,
  seed: number,
): { name: Control; vectors: Float32Array[] }[] {
  const random = { name: "random" as const, vectors: [randomLike(ofTasks.get(task)!, seed)] };
  const tasks = [...ofTasks.keys()];
  if (tasks.length === 1) return [random];
  const index = tasks.indexOf(task);
  const others = [...tasks.slice(index + 1), ...tasks.slice(0, index)];
  const asked = (["validation", "test"] as const).flatMap((split) => lab.items(task, split));
  const alike = relatedTasks(task.name, asked, others, others.length);
  const nearest = alike[0] ?? others[0]!;
  const another = others.find((other) => !alike.includes(other)) ?? others[0]!;
  return [
    { name: "nearestTask", vectors: [ofTasks.get(nearest)!] },
    { name: "anotherTask", vectors: [ofTasks.get(another)!] },
    { name: "meanOfTasks", vectors: [meanOf([...ofTasks.values()])] },
    random,
  ];
}
