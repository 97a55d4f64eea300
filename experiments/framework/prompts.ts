import {
  drawItems,
  type Example,
  exampleOf,
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
import { seededRandom } from "../statistics/random.ts";
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
  template = lab.options.template,
): Promise<Prompt<PromptImage>[]> {
  const ask = await lab.asker(task, split, query);
  return lab.items(task, split).map((item) => fewShotPrompt(lab.model, [], ask(item), template));
}

export interface SpecifiedQueries {
  readonly split: AskedSplit;
  readonly specification: SpecificationKind;
  readonly query: Modality;
  readonly seed: number;
  /** The lab's unless given. */
  readonly template?: string;
  /** Whether the examples keep their answers, or are given those of each other. Default: they keep them. */
  readonly answers?: "own" | "permuted";
}

/** The query of each item behind the specification: examples drawn anew for each item, or the instruction. */
export async function specifiedQueries(
  lab: Lab,
  task: Task,
  {
    split,
    specification: kind,
    query,
    seed,
    template = lab.options.template,
    answers = "own",
  }: SpecifiedQueries,
  model: PatchableModel = lab.model,
): Promise<Prompt<PromptImage>[]> {
  const { shots: count } = lab.options;
  const specification: Specification =
    kind === "instruction"
      ? { kind, text: instructionOf(task), template }
      : { kind: "examples", asked: await lab.asker(task, split, kind), count, seed, template };
  const pool = lab.pool(task, split);
  const ask = await lab.asker(task, split, query);
  return lab.items(task, split).map((item, index) => {
    if (answers === "own" || specification.kind === "instruction") {
      return promptInContext(model, specification, pool, item, ask(item));
    }
    const examples = drawItems(pool, item, { count, seed }).map((one) => exampleOf(one, specification.asked));
    return fewShotPrompt(model, permutedAnswers(examples, seed * 1009 + index), ask(item), template);
  });
}

/** Draws of which {@link permutedAnswers} takes the best. */
const PERMUTATIONS = 20;

/**
 * The same questions with each other's answers: of some random cycles (Sattolo 1986), which move every answer, the one that
 * leaves fewest right. Only an answer that more than half of the examples share has to stay right for some.
 */
export function permutedAnswers(examples: readonly Example[], seed: number): Example[] {
  const random = seededRandom(seed);
  const drawn = Array.from({ length: PERMUTATIONS }, () => {
    const answers = examples.map(({ answer }) => answer);
    for (let i = answers.length - 1; i > 0; i--) {
      const j = Math.floor(random() * i);
      [answers[i], answers[j]] = [answers[j]!, answers[i]!];
    }
    return { answers, kept: answers.filter((answer, i) => answer === examples[i]!.answer).length };
  });
  const { answers } = drawn.reduce((a, b) => (b.kept < a.kept ? b : a));
  return examples.map(({ question }, i) => ({ question, answer: answers[i]! }));
}

export function instructionOf({ name, instruction }: Task): string {
  if (instruction !== undefined) return instruction;
  throw new XpatchError(`task ${name} has no instruction`);
}
