import {
  fewShotPrompt,
  type Modality,
  type PatchableModel,
  type Prompt,
  type PromptImage,
  promptInContext,
  type Specification,
  type SpecificationKind,
  type Task,
  XpatchError,
} from "xpatch";
import type { AskedSplit, Lab } from "./lab.ts";

/** How specifications and queries are called in tables and figures. */
export const SPECIFICATION_NAMES: Readonly<Record<SpecificationKind, string>> = {
  text: "text examples",
  image: "image examples",
  instruction: "instruction",
};

export const QUERY_NAMES: Readonly<Record<Modality, string>> = { text: "text query", image: "image query" };

/** The seeds of a specification: an instruction draws nothing. */
export function seedsOf(lab: Lab, specification: SpecificationKind, count = lab.options.seeds): number[] {
  return specification === "instruction" ? [0] : Array.from({ length: count }, (_, seed) => seed);
}

/** Queries about pictures, the farthest from text, where the lab has any; else about text. */
export function widestQuery(lab: Lab): Modality {
  return lab.tasksInMeans.some((task) => lab.isPictured(task)) ? "image" : "text";
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
  readonly specification: SpecificationKind;
  readonly query: Modality;
  readonly seed: number;
}

/** The query of each item behind the specification: examples drawn anew for each item, or the instruction. */
export async function specifiedQueries(
  lab: Lab,
  task: Task,
  { split, specification: kind, query, seed }: SpecifiedQueries,
  model: PatchableModel = lab.model,
): Promise<Prompt<PromptImage>[]> {
  const { shots: count, template } = lab.options;
  const specification: Specification =
    kind === "instruction"
      ? { kind, text: instructionOf(task), template }
      : { kind: "examples", asked: await lab.asker(task, split, kind), count, seed, template };
  const pool = lab.pool(task, split);
  const ask = await lab.asker(task, split, query);
  return lab.items(task, split).map((item) => promptInContext(model, specification, pool, item, ask(item)));
}

export function instructionOf({ name, instruction }: Task): string {
  if (instruction !== undefined) return instruction;
  throw new XpatchError(`task ${name} has no instruction`);
}
