import { knownCircuit, VARIANTS } from "../../scripts/known-circuit/circuit.ts";
import { FACTS, ITEMS, TASK_WORDS, taskFiles } from "../../scripts/known-circuit/facts.ts";
import { extractTaskVectors, type TaskVectors } from "../../src/analysis/vectors/task-vectors.ts";
import { memoryFolder } from "../../src/model/checkpoint/source/folder.ts";
import type { Prompt } from "../../src/model/prompt/prompt.ts";
import type { Edit } from "../../src/patching/edit.ts";
import { loadModel, type PatchableModel } from "../../src/patching/model.ts";
import { fewShotPrompt, PAPER_TEMPLATE } from "../../src/tasks/few-shot.ts";
import { taskSource } from "../../src/tasks/specification.ts";
import { itemsOf, parseTask, type Task } from "../../src/tasks/task.ts";
import { testDevice } from "./device.ts";

export type Variant = keyof typeof VARIANTS;

export const TASKS: readonly Task[] = Object.entries(taskFiles()).map(([file, text]) =>
  parseTask(text, file),
);

/** Items that vectors are extracted from and asked about. */
const COUNT = 12;
export const ASKED = itemsOf(TASKS[0]!, "validation")
  .slice(0, COUNT)
  .map(({ input }) => input);

export async function loadVariant(name: Variant): Promise<PatchableModel> {
  const files = await knownCircuit(VARIANTS[name]);
  return loadModel(memoryFolder(files, name), { device: await testDevice() });
}

export const wordOf = (t: number): string => TASK_WORDS[t]!;

export const answerOf = (t: number, item: string): string => FACTS[t]![ITEMS.indexOf(item)]!;

/** The question about an item behind examples `[item, answer]`. */
export function prompt(
  model: PatchableModel,
  item: string,
  examples: readonly (readonly [string, string])[] = [],
): Prompt {
  const shown = examples.map(([question, answer]) => ({ question, answer }));
  return fewShotPrompt(model, shown, item, PAPER_TEMPLATE);
}

/** `count` examples of task t for an item: those that follow it in the list. */
export function examplesOf(t: number, item: string, count = 5): [string, string][] {
  const first = ITEMS.indexOf(item) + 1;
  const shown = Array.from({ length: count }, (_, e) => ITEMS[(first + e) % ITEMS.length]!);
  return shown.map((one) => [one, answerOf(t, one)]);
}

/** The next token of each prompt, as the vocabulary spells it: no rule of scoring stands in between. */
export async function says(
  model: PatchableModel,
  prompts: readonly Prompt[],
  edits: readonly Edit[] = [],
): Promise<string[]> {
  const answers = await model.generate(prompts, { maxNewTokens: 1, edits });
  return answers.map(({ ids }) => model.tokenizer.tokenOf(ids[0]!));
}

/** Task vectors of all layers, by the protocol: at the last example's delimiter, over validation items. */
export async function extract(
  model: PatchableModel,
  t: number,
  kind: "text" | "instruction" = "text",
): Promise<TaskVectors> {
  const options = { kind, template: PAPER_TEMPLATE, items: COUNT };
  const { prompts, at } = await taskSource(model, TASKS[t]!, "validation", options);
  return extractTaskVectors(model, prompts, { at });
}
