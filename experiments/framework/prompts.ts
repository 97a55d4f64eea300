import {
  drawItems,
  exampleOf,
  fewShotPrompt,
  instructedPrompt,
  type PatchableModel,
  type Prompt,
  type PromptImage,
  type Task,
  XpatchError,
} from "xpatch";
import type { AskedSplit, Lab, Modality } from "./lab.ts";

/** How a task is given: examples whose x is text or a picture, or the task in words. */
export type Specification = Modality | "instruction";

/** How specifications and queries are called in tables and figures. */
export const SPECIFICATION_NAMES: Readonly<Record<Specification, string>> = {
  text: "text examples",
  image: "image examples",
  instruction: "instruction",
};

export const QUERY_NAMES: Readonly<Record<Modality, string>> = { text: "text query", image: "image query" };

/** The specifications that a task has. */
export function specificationsOf(lab: Lab, task: Task): Specification[] {
  return [...lab.modalities(task), ...(task.instruction === undefined ? [] : ["instruction" as const])];
}

/** The seeds of a specification: an instruction draws nothing. */
export function seedsOf(lab: Lab, specification: Specification, count = lab.options.seeds): number[] {
  return specification === "instruction" ? [0] : Array.from({ length: count }, (_, seed) => seed);
}

/** The bare query of each item. */
export async function queries(
  lab: Lab,
  task: Task,
  split: AskedSplit,
  query: Modality,
): Promise<Prompt<PromptImage>[]> {
  const ask = await lab.asker(task, split, query);
  return lab.items(task, split).map((item) => fewShotPrompt(lab.model, [], ask(item), lab.options.template));
}

export interface SpecifiedQueries {
  readonly split: AskedSplit;
  readonly specification: Specification;
  readonly query: Modality;
  readonly seed: number;
}

/** The query of each item behind the specification: examples drawn anew for each item, or the instruction. */
export async function specifiedQueries(
  lab: Lab,
  task: Task,
  { split, specification, query, seed }: SpecifiedQueries,
  model: PatchableModel = lab.model,
): Promise<Prompt<PromptImage>[]> {
  const { shots: count, template } = lab.options;
  const ask = await lab.asker(task, split, query);
  const items = lab.items(task, split);
  if (specification === "instruction") {
    return items.map((item) => instructedPrompt(model, instructionOf(task), ask(item), template));
  }
  const show = await lab.asker(task, split, specification);
  const pool = lab.pool(task, split);
  return items.map((item) => {
    const shown = drawItems(pool, item, { count, seed }).map((drawn) => exampleOf(drawn, show));
    return fewShotPrompt(model, shown, ask(item), template);
  });
}

export function instructionOf({ name, instruction }: Task): string {
  if (instruction !== undefined) return instruction;
  throw new XpatchError(`task ${name} has no instruction`);
}
