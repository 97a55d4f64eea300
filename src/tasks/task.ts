import { aString, checkArgument } from "../arguments.ts";
import { XpatchError } from "../errors.ts";
import { addressFrom } from "./address.ts";
import { hashText } from "./text-hash.ts";

/** Vectors come from `train`, layers are chosen on `validation`, and `test` is scored. */
export const SPLITS = ["train", "validation", "test"] as const;

/** What an item may be used for: to train on, to choose by (a layer, a template), or to report on. */
export type Split = (typeof SPLITS)[number];

/** A question with its right answers, and its split. */
export interface TaskItem {
  /** The question as text, e.g. "Greece". */
  readonly input: string;
  /** Right answers, at least one. The first is the one shown in examples. */
  readonly outputs: readonly string[];
  /** What it is used for. */
  readonly split: Split;
  /** Path or URL of a picture of the input. In a task file it may be relative to that file. */
  readonly image?: string;
  /** Code points of an emoji of the input, as icon sets write them: "1f1ec-1f1f7". */
  readonly emoji?: string;
  /** The input described in one or several sentences, which may stand in place of its name. */
  readonly text?: string;
  /** Another thing that may be asked about the input or its picture, which the task is to override. */
  readonly question?: string;
  /** Right answers to `question`. Both are there or neither is. */
  readonly answers?: readonly string[];
}

/** An item that has a picture. */
export interface PicturedItem extends TaskItem {
  readonly image: string;
}

/** A map from inputs to outputs, given by examples: country → capital, animal → young. */
export interface Task {
  /** `country-capital`. */
  readonly name: string;
  /** The task in words, for prompts that instruct instead of showing examples: "The capital city of the country:". */
  readonly instruction?: string;
  /** Where the answers come from. */
  readonly source?: string;
  /** What the items may be used under: `CC0-1.0`. */
  readonly license?: string;
  /** In the order of the file; no input twice. */
  readonly items: readonly TaskItem[];
}

/**
 * Reads a task file: JSON with `name`, `items`, and optionally `instruction`, `source` and `license`. An item has an
 * `input`, an `output` (a string, or a list of strings that are all right), and optionally `image`, `emoji`, `split`, `text`,
 * and a `question` with its `answer` (as `output`). An item without a split gets that of {@link splitOf}.
 *
 * @param where the file's path or URL: relative pictures are found from there, and messages name it
 * @throws XpatchError saying which item and field is wrong
 */
export function parseTask(text: string, where: string): Task {
  checkArgument("parseTask", "text", text, aString);
  checkArgument("parseTask", "where (the file's path)", where, aString);
  let json: unknown;
  try {
    json = JSON.parse(withoutMark(text));
  } catch (cause) {
    throw new XpatchError(`${where}: expected JSON: ${(cause as Error).message}`, { cause });
  }
  const file = fieldsOf(json, where, ["name", "instruction", "source", "license", "items"]);
  const { name, items: list } = file;
  if (!isText(name)) throw wrong(where, "name", "some text", name);
  if (!Array.isArray(list) || list.length === 0) throw wrong(where, "items", "a list of items", list);
  const items = list.map((item, i) => readItem(item, `${where}: items[${i}]`, where));
  checkInputs(items, where);
  return { name, ...optionalTexts(file, ["instruction", "source", "license"], where), items };
}

/** A text without the byte order mark that it may begin with. */
export function withoutMark(text: string): string {
  return text.startsWith("\ufeff") ? text.slice(1) : text;
}

/** Throws XpatchError when an input comes twice. */
export function checkInputs(items: readonly TaskItem[], where: string): void {
  const seen = new Set<string>();
  for (const { input } of items) {
    if (seen.has(input)) throw new XpatchError(`${where}: expected each input once, found "${input}" twice`);
    seen.add(input);
  }
}

/**
 * The split of an input by rule: its hash sends 40 % to train, 30 % to validation, 30 % to test. It depends on nothing
 * else, so an input is in the same split in every task, and stays there when items are added.
 */
export function splitOf(input: string): Split {
  const fraction = hashText(input) / 2 ** 32;
  if (fraction < 0.4) return "train";
  return fraction < 0.7 ? "validation" : "test";
}

/** The items of a split. Throws XpatchError when there are none. */
export function itemsOf(task: Task, split: Split): TaskItem[] {
  const items = task.items.filter((item) => item.split === split);
  if (items.length === 0) throw new XpatchError(`task ${task.name}: no item is in the ${split} split`);
  return items;
}

/** The items of a split that have a picture. Throws XpatchError when there are none. */
export function picturedItemsOf(task: Task, split: Split): PicturedItem[] {
  const items = itemsOf(task, split).filter((item): item is PicturedItem => item.image !== undefined);
  if (items.length === 0)
    throw new XpatchError(`task ${task.name}: no item of the ${split} split has an image`);
  return items;
}

export const ITEM_FIELDS = [
  "input",
  "output",
  "image",
  "emoji",
  "split",
  "text",
  "question",
  "answer",
] as const;

/**
 * An item of a task file by its fields.
 *
 * @param where the item, for messages
 * @param file where relative pictures are found from
 * @throws XpatchError saying which field is wrong
 */
export function readItem(json: unknown, where: string, file: string): TaskItem {
  const item = fieldsOf(json, where, ITEM_FIELDS);
  const { input } = item;
  const split = item["split"] === undefined ? undefined : SPLITS.find((name) => name === item["split"]);
  if (!isText(input)) throw wrong(where, "input", "some text", input);
  const outputs = textsOf(item, "output", where);
  if (item["split"] !== undefined && !split) {
    throw wrong(where, "split", `one of ${SPLITS.join(", ")}`, item["split"]);
  }
  const { image, emoji, text, question } = optionalTexts(item, ["image", "emoji", "text", "question"], where);
  const answers = item["answer"] === undefined ? undefined : textsOf(item, "answer", where);
  if ((question === undefined) !== (answers === undefined)) {
    const [given, lacking] = question === undefined ? ["answer", "question"] : ["question", "answer"];
    throw new XpatchError(`${where}: expected ${given} to come with ${lacking}, found it alone`);
  }
  return {
    input,
    outputs,
    split: split ?? splitOf(input),
    ...(image !== undefined && { image: addressFrom(file, image) }),
    ...(emoji !== undefined && { emoji }),
    ...(text !== undefined && { text }),
    ...(question !== undefined && { question, answers }),
  };
}

/** A field that is a text or a list of texts. */
function textsOf(item: Record<string, unknown>, key: string, where: string): string[] {
  const value = item[key];
  const texts: unknown[] = Array.isArray(value) ? value : [value];
  if (texts.length > 0 && texts.every(isText)) return texts;
  throw wrong(where, key, "some text, or a list of such", value);
}

function fieldsOf(json: unknown, where: string, known: readonly string[]): Record<string, unknown> {
  if (typeof json !== "object" || json === null || Array.isArray(json)) {
    throw new XpatchError(`${where}: expected an object, found ${show(json)}`);
  }
  const unknown = Object.keys(json).find((key) => !known.includes(key));
  if (unknown !== undefined) {
    throw new XpatchError(`${where}: expected the fields ${known.join(", ")}; found "${unknown}"`);
  }
  return json as Record<string, unknown>;
}

function optionalTexts<K extends string>(
  fields: Record<string, unknown>,
  keys: readonly K[],
  where: string,
): { [key in K]?: string } {
  const found: { [key in K]?: string } = {};
  for (const key of keys) {
    const value = fields[key];
    if (value === undefined) continue;
    if (!isText(value)) throw wrong(where, key, "some text", value);
    found[key] = value;
  }
  return found;
}

function isText(value: unknown): value is string {
  return typeof value === "string" && value.trim() !== "";
}

function wrong(where: string, key: string, expected: string, found: unknown): XpatchError {
  return new XpatchError(`${where}: expected ${key} to be ${expected}, found ${show(found)}`);
}

function show(value: unknown): string {
  return value === undefined ? "nothing" : JSON.stringify(value).slice(0, 80);
}
