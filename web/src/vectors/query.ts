import type { TaskSummary } from "../../../src/session/messages/results.ts";
import { readCount, readFields, readOneOf, readString } from "../document/read.ts";
import type { PictureRef } from "../pictures/picture-ref.ts";
import { MOST_EXAMPLES, type PromptDoc, SPECIFY, type Specify } from "../prompts/prompt-doc.ts";

/** What stands before a question about a picture: nothing, or what says a task. */
export type Context = {
  readonly specify: Specify;
  readonly task: string;
  /** Examples. */
  readonly count: number;
  readonly seed: number;
};

export const NO_CONTEXT: Context = { specify: "none", task: "country-capital", count: 5, seed: 0 };

export function readContext(value: unknown, at: string): Context {
  const fields = readFields(value, at, ["specify", "task", "count", "seed"]);
  return {
    specify: readOneOf(fields["specify"], `${at}.specify`, SPECIFY),
    task: readString(fields["task"], `${at}.task`, 100),
    count: Math.max(1, readCount(fields["count"], `${at}.count`, MOST_EXAMPLES)),
    seed: readCount(fields["seed"], `${at}.seed`, 2 ** 31),
  };
}

export function contextInWords({ specify, task, count }: Context): string {
  switch (specify) {
    case "none":
      return "the question alone";
    case "instruction":
      return `behind the instruction of ${task}`;
    default:
      return `behind ${count} ${specify === "image" ? "picture" : "text"} examples of ${task}`;
  }
}

/**
 * The question about a picture, in a context. For the reader's own pictures, which no task has, it is written out as the library writes
 * it: the examples are then the first of the train split. Throws for what cannot be asked so.
 */
export function queryOf(picture: PictureRef, context: Context, tasks: readonly TaskSummary[]): PromptDoc {
  const { specify, task: name, count, seed } = context;
  if (picture.kind === "task") {
    const { task, input } = picture;
    const shared = { kind: "task", input, asked: "image", specify, count, seed } as const;
    if (specify === "none") return { ...shared, task };
    const has = taskNamed(tasks, name).items.some((item) => item.input === input && item.picture);
    if (has) return { ...shared, task: name };
  }
  return {
    kind: "written",
    pieces: [{ text: `${before(context, tasks)}Q:` }, { picture }, { text: "\nA:" }],
    chat: false,
  };
}

function before({ specify, task: name, count }: Context, tasks: readonly TaskSummary[]): string {
  if (specify === "none") return "";
  const { instruction, items } = taskNamed(tasks, name);
  if (specify === "instruction") {
    if (instruction !== undefined) return `${instruction}\n`;
    throw new Error(`the task ${name} has no instruction`);
  }
  if (specify === "image")
    throw new Error(`examples with pictures go with pictures of ${name} only; choose examples in words`);
  const shown = items.filter(({ split }) => split === "train").slice(0, count);
  return shown.map(({ input, outputs }) => `Q: ${input}\nA: ${outputs[0]}\n\n`).join("");
}

export function taskNamed(tasks: readonly TaskSummary[], name: string): TaskSummary {
  const task = tasks.find((each) => each.name === name);
  if (task) return task;
  throw new Error(`there is no task ${name}`);
}

/** Right answers of a picture's item, in the task that a vector is of. */
export function rightAnswers(
  picture: PictureRef,
  task: string | undefined,
  tasks: readonly TaskSummary[],
): readonly string[] {
  if (picture.kind !== "task" || task === undefined) return [];
  const found = tasks.find((each) => each.name === task)?.items.find(({ input }) => input === picture.input);
  return found?.outputs ?? [];
}
