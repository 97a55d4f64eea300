import {
  aNumber,
  aString,
  checkArgument,
  checkOptions,
  type Expected,
  type Options,
  oneOf,
} from "../arguments.ts";
import { XpatchError } from "../errors.ts";
import { isObject } from "../model/checkpoint/json/config-reader.ts";
import type { ModelOutline } from "../model/language-model.ts";
import type { Prompt } from "../model/prompt/prompt.ts";
import type { PromptImage } from "../model/prompt/prompt-image.ts";
import { aModelOutline } from "../patching/arguments.ts";
import type { OnePosition } from "../patching/positions.ts";
import {
  type Asker,
  atLastExample,
  byText,
  drawItems,
  exampleOf,
  fewShotPrompt,
  instructedPrompt,
  type Question,
  upToLastExample,
} from "./few-shot.ts";
import { loadPictures } from "./pictures.ts";
import {
  itemsOf,
  type PicturedItem,
  picturedItemsOf,
  SPLITS,
  type Split,
  type Task,
  type TaskItem,
} from "./task.ts";

/** What questions are made of. */
export const MODALITIES = ["text", "image"] as const;
/** How items are asked about: `"text"`, by name, or `"image"`, by picture. */
export type Modality = (typeof MODALITIES)[number];

/** What tells a model the task: examples with text or pictures as questions, or words. */
export const SPECIFICATION_KINDS = ["text", "image", "instruction"] as const;
/** What tells the task: examples by `"text"` or by `"image"`, or an `"instruction"`. */
export type SpecificationKind = (typeof SPECIFICATION_KINDS)[number];

/** How prompts say what the task is. */
export type Specification = { readonly template?: string } & (
  | { readonly kind: "examples"; readonly asked: Asker; readonly count: number; readonly seed: number }
  | { readonly kind: "instruction"; readonly text: string }
);

/** The items of a split that can be asked about, or be shown, in a modality. Throws XpatchError when there are none. */
export function itemsIn(modality: Modality, task: Task, split: Split): TaskItem[] {
  return modality === "image" ? picturedItemsOf(task, split) : itemsOf(task, split);
}

/** The items of a split that a specification can draw its examples from. */
export function poolOf(kind: SpecificationKind, task: Task, split: Split): TaskItem[] {
  return itemsIn(kind === "image" ? "image" : "text", task, split);
}

/** How to ask about items in a modality. Loads their pictures where it takes pictures; throws as `loadPictures` does. */
export async function askerIn(
  modality: Modality,
  model: ModelOutline,
  items: readonly TaskItem[],
): Promise<Asker> {
  if (modality === "text") return byText;
  return loadPictures(
    model,
    items.filter((item): item is PicturedItem => item.image !== undefined),
  );
}

/** What tells a model the task: examples or an instruction, how many and how drawn. */
export interface SpecifyOptions {
  readonly kind: SpecificationKind;
  /** Examples in a prompt. Default 5. */
  readonly count?: number;
  /** Other seeds draw other examples. Default 0. */
  readonly seed?: number;
  readonly template?: string;
}

export const SPECIFY_OPTIONS: Options<SpecifyOptions> = {
  kind: oneOf(...SPECIFICATION_KINDS),
  count: aNumber,
  seed: aNumber,
  template: aString,
};

const aTask: Expected = {
  words: "a task (parseTask(…) makes one)",
  holds: (task) => isObject(task) && typeof task["name"] === "string" && Array.isArray(task["items"]),
};

/** Throws ArgumentError unless there are a model, a task and options that say its kind. */
export function checkTask<T extends { kind: unknown }>(
  call: string,
  model: unknown,
  task: unknown,
  options: unknown,
  known: Options<T>,
): void {
  checkArgument(call, "model", model, aModelOutline);
  checkArgument(call, "task", task, aTask);
  checkOptions(call, options, known, { required: ["kind"] });
}

/** A task's specification. Loads the pictures of `items` where examples are pictures; throws as `loadPictures` does. */
export async function specify(
  model: ModelOutline,
  task: Task,
  items: readonly TaskItem[],
  options: SpecifyOptions,
): Promise<Specification> {
  checkTask("specify", model, task, options, SPECIFY_OPTIONS);
  const { kind, count = 5, seed = 0, template } = options;
  if (kind !== "instruction") {
    return { kind: "examples", asked: await askerIn(kind, model, items), count, seed, template };
  }
  return { kind, text: instructionOf(task), template };
}

/** Throws XpatchError for a task without one. */
export function instructionOf({ name, instruction }: Task): string {
  if (instruction !== undefined) return instruction;
  throw new XpatchError(`task ${name} has no instruction`);
}

/**
 * A prompt that says what the task is and then asks about an item: examples drawn from the other items of `pool`, or the
 * instruction, before the question.
 */
export function promptInContext(
  model: ModelOutline,
  specification: Specification,
  pool: readonly TaskItem[],
  { input }: Pick<TaskItem, "input">,
  question: Question,
): Prompt<PromptImage> {
  const { template } = specification;
  if (specification.kind === "instruction") {
    return instructedPrompt(model, specification.text, question, template);
  }
  const { asked, count, seed } = specification;
  const examples = drawItems(pool, { input }, { count, seed }).map((item) => exampleOf(item, asked));
  return fewShotPrompt(model, examples, question, template);
}

/** Prompts to extract a task vector from, and where in each of them it is read. */
export interface VectorSource {
  /** Prompts that specify the task. */
  readonly prompts: readonly Prompt<PromptImage>[];
  /** The token of each that holds the task vector. */
  readonly at: OnePosition;
}

/**
 * What a task vector is read from, by Luo et al. 2025: for each of `items` a prompt with its own draw of examples, at the
 * last example's answer cue, where nothing is known of the question; or the instruction alone, at its last token. Where tokens see
 * those behind them too, and where an encoder reads the prompt, the prompts end at that cue, and are read at their last token: of
 * a decoder its start token, of an encoder the prompt's end token.
 */
export function vectorSource(
  model: ModelOutline,
  specification: Specification,
  pool: readonly TaskItem[],
  items: readonly TaskItem[],
): VectorSource {
  if (specification.kind === "instruction") return { prompts: [model.prompt(specification.text)], at: -1 };
  const { asked } = specification;
  const prompts = items.map((item) => promptInContext(model, specification, pool, item, asked(item)));
  const { encoder, promptBothWays } = model.config;
  if (!encoder && !promptBothWays) return { prompts, at: atLastExample };
  return { prompts: prompts.map((prompt) => upToLastExample(model, prompt)), at: -1 };
}

/** What tells the task, and for how many items prompts are made. */
export interface TaskSourceOptions extends SpecifyOptions {
  /** Most items to make prompts for. Default: all of the split. */
  readonly items?: number;
}

/** What a task's vector is read from, given as `options` say by the items of a split. */
export async function taskSource(
  model: ModelOutline,
  task: Task,
  split: Split,
  given: TaskSourceOptions,
): Promise<VectorSource> {
  checkTask("taskSource", model, task, given, { ...SPECIFY_OPTIONS, items: aNumber });
  checkArgument("taskSource", "split", split, oneOf(...SPLITS));
  const { items, ...options } = given;
  const pool = poolOf(options.kind, task, split);
  return vectorSource(model, await specify(model, task, pool, options), pool, pool.slice(0, items));
}
