import {
  fewShotPrompt,
  instructedPrompt,
  type Modality,
  type Prompt,
  type PromptImage,
  type Task,
  type TaskItem,
} from "xpatch";
import { defineCell } from "../framework/cell.ts";
import type { AskedSplit, Lab } from "../framework/lab.ts";
import { instructionOf } from "../framework/prompts.ts";
import { scored } from "../framework/scored.ts";
import { randomLike } from "../statistics/vectors.ts";
import { chosenLayer, type LayerSweepResult, patchAt, type Sweep, tasksWith } from "./layer-sweep.ts";
import { type ScoredTwice, scoredTwice } from "./pairs.ts";
import { vectorsOf } from "./task-vectors.ts";

/** What is asked about items that have no question of their own; their names answer it. */
export const QUESTION = "What is it?";

/** The items of a split, as they answer the question in the prompt (`own`) and the task that overrides it (`other`). */
export function overriddenItems(lab: Lab, task: Task, split: AskedSplit) {
  const other = lab.items(task, split);
  return { indices: [...other.keys()], own: other.map(asQuestion), other };
}

/** An item as its own question is answered; one without a question by its name. */
export function asQuestion(item: TaskItem): TaskItem {
  return { ...item, outputs: item.answers ?? [item.input] };
}

interface OverridingPrompts {
  /** Picture or text, and the question. */
  readonly plain: readonly Prompt<PromptImage>[];
  /** The same behind the task's instruction. */
  readonly system: readonly Prompt<PromptImage>[];
}

async function promptsOf(
  lab: Lab,
  task: Task,
  split: AskedSplit,
  query: Modality,
): Promise<OverridingPrompts> {
  const ask = await lab.asker(task, split, query);
  const asked = lab.items(task, split).map((item) => ({
    question: ask(item),
    // The question stands on a line of its own below the picture.
    template: lab.options.template.replace("{x}", () => `{x}\n${item.question ?? QUESTION}`),
  }));
  return {
    plain: asked.map(({ question, template }) => fewShotPrompt(lab.model, [], question, template)),
    system: asked.map(({ question, template }) =>
      instructedPrompt(lab.model, instructionOf(task), question, template),
    ),
  };
}

function instructionVectors(lab: Lab, task: string) {
  return vectorsOf(lab, { source: "model", task, specification: "instruction", seed: 0 });
}

/** How many validation items are answered as the instruction says when its vector is patched into their questions. */
export const overridingSweep: Sweep = defineCell(
  "overriding-sweep",
  async (lab, { task: name, query }): Promise<LayerSweepResult> => {
    const task = lab.task(name);
    const items = lab.items(task, "validation");
    const { plain } = await promptsOf(lab, task, "validation", query);
    const vectors = await instructionVectors(lab, name);
    const edits = vectors.map((vector, layer) => patchAt(lab, layer, vector));
    const { unpatched, patched } = await lab.patchEach(plain, edits);
    const { tokenizer } = lab.model;
    return {
      layers: [...vectors.keys()],
      noContext: scored(tokenizer, items, unpatched, lab.options),
      patched: [patched.map((ids) => scored(tokenizer, items, ids, lab.options))],
    };
  },
);

export const OVERRIDING_CONTROLS = ["anotherInstruction", "random"] as const;

export type OverridingControl = (typeof OVERRIDING_CONTROLS)[number];

export interface OverridingResult {
  /** The layer that validation items chose. */
  readonly layer: number;
  readonly prompts: readonly string[];
  /** The question alone, behind the instruction, and alone with the instruction's vector. */
  readonly none: ScoredTwice;
  readonly system: ScoredTwice;
  readonly patched: ScoredTwice;
  /** With a single task there is no other instruction. */
  readonly controls: Readonly<Partial<Record<OverridingControl, ScoredTwice>>>;
}

/** The test items of a task, asked something else, with the instruction in front or its vector patched in. */
export const overridingTest = defineCell(
  "overriding-test",
  async (lab, { task: name, query }: { task: string; query: Modality }): Promise<OverridingResult> => {
    const task = lab.task(name);
    const setup = { specification: "instruction", query } as const;
    const items = overriddenItems(lab, task, "test");
    const { plain, system } = await promptsOf(lab, task, "test", query);
    const layer = chosenLayer(lab, setup, task, overridingSweep);
    const own = (await instructionVectors(lab, name))[layer]!;
    const tasks = tasksWith(lab, setup).map((one) => one.name);
    const other = tasks[(tasks.indexOf(name) + 1) % tasks.length]!;
    const controls: [OverridingControl, Float32Array][] = [["random", randomLike(own, layer)]];
    if (other !== name) controls.push(["anotherInstruction", (await instructionVectors(lab, other))[layer]!]);
    const edits = [own, ...controls.map(([, vector]) => vector)].map((vector) => patchAt(lab, layer, vector));
    const { unpatched, patched } = await lab.patchEach(plain, edits);
    const twice = (ids: readonly number[]) => scoredTwice(lab.model.tokenizer, items, ids, lab.options);
    return {
      layer,
      prompts: plain.map(({ text }) => text),
      none: twice(unpatched),
      system: twice(await lab.answers(system)),
      patched: twice(patched[0]!),
      controls: Object.fromEntries(controls.map(([control], i) => [control, twice(patched[i + 1]!)])),
    };
  },
);
