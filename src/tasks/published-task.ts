import { XpatchError } from "../errors.ts";
import { readItem, type Split, type Task, type TaskItem, withoutMark } from "./task.ts";

/** The instructions of the published tasks, which their files lack: those of Luo et al. 2025. */
const INSTRUCTIONS: Readonly<Record<string, string>> = {
  "country-capital": "The capital city of the country:",
  "country-currency": "The last word of the official currency of the country:",
  "animal-latin": "The scientific name of the animal's species in latin:",
  "animal-young": "The term for the baby of the animal:",
  "food-color": "The color of the food:",
  "food-flavor": "The flavor descriptor of the food:",
};

/** The text of a file, and its path or URL. */
export interface TaskText {
  readonly text: string;
  readonly where: string;
}

/**
 * Reads a task in the layout of the data set that Luo et al. 2025 published: a file for each of two splits,
 * `annotations/<task>_val.json` and `annotations/<task>_test.json`, either a list of `{ input, output, image }` or such a
 * list as `data` of an object. Pictures are found from the folder above `annotations`. There is no train split; an input may
 * come more than once, with different pictures. The paper's six tasks have its instructions, by their names.
 *
 * @throws XpatchError saying which item and field is wrong
 */
export function parsePublishedTask(
  name: string,
  files: { readonly validation: TaskText; readonly test: TaskText },
): Task {
  const items = [...readSplit(files.validation, "validation"), ...readSplit(files.test, "test")];
  return { name, ...(Object.hasOwn(INSTRUCTIONS, name) && { instruction: INSTRUCTIONS[name] }), items };
}

/** Whether a text is a file of that layout: JSON without the name of a task. */
export function isPublished(text: string): boolean {
  try {
    return listOf(JSON.parse(withoutMark(text))) !== undefined;
  } catch {
    return false;
  }
}

function readSplit({ text, where }: TaskText, split: Split): TaskItem[] {
  let json: unknown;
  try {
    json = JSON.parse(withoutMark(text));
  } catch (cause) {
    throw new XpatchError(`${where}: expected JSON: ${(cause as Error).message}`, { cause });
  }
  const list = listOf(json);
  if (!list || list.length === 0) {
    throw new XpatchError(`${where}: expected a list of items, or an object with such a list as data`);
  }
  return list.map((entry, i) => {
    const at = `${where}: item ${i}`;
    if (typeof entry !== "object" || entry === null) {
      throw new XpatchError(`${at}: expected an object, found ${JSON.stringify(entry)}`);
    }
    const { input, output, image } = entry as Record<string, unknown>;
    // Relative to the data set's folder, which holds the folder of this file.
    return readItem({ input, output, image: outOfFolder(image), split }, at, where);
  });
}

function outOfFolder(image: unknown): unknown {
  const isRelative = typeof image === "string" && !/^([a-z][a-z0-9+.-]*:|[\\/])/i.test(image);
  return isRelative ? `../${image}` : image;
}

function listOf(json: unknown): readonly unknown[] | undefined {
  if (Array.isArray(json)) return json;
  if (typeof json !== "object" || json === null) return undefined;
  const { data } = json as { data?: unknown };
  return Array.isArray(data) ? data : undefined;
}
