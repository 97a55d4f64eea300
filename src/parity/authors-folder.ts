import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { CheckpointError } from "../errors.ts";
import type { JsonObject } from "../model/checkpoint/json/config-reader.ts";
import { MODALITIES, type Modality } from "../tasks/specification.ts";
import { readItem, type TaskItem } from "../tasks/task.ts";
import { objects, readJson } from "./case-folder.ts";
import { type Golden, GoldenFile } from "./golden-file.ts";

/** What the paper's own program answered about the items of one file, `<task>_val.json` or `<task>_test.json`. */
export interface AuthorsSplit {
  readonly file: string;
  readonly split: "val" | "test";
  readonly items: readonly TaskItem[];
  /** The examples in front of each item, in order: indices into `items`. */
  readonly drawn: readonly (readonly number[])[];
  readonly noContext: readonly string[];
  readonly prompt: readonly string[];
  /** `patched[layer][item]` */
  readonly patched: readonly (readonly string[])[];
}

/** A task whose examples are of one modality and whose queries are of another, or the same. */
export interface AuthorsTask {
  readonly examples: Modality;
  readonly query: Modality;
  readonly task: string;
  /** val first: the vectors come from it. */
  readonly splits: readonly AuthorsSplit[];
  /** f32 [layers, width]: the mean over the prompts of val. */
  readonly vectors: Golden;
}

const FIELDS = ["items", "train_idxs", "labels_text", "baseline_text", "regular_text", "hypothesis_text"];

/**
 * Reads a folder of answers of the paper's program: folders `<examples>-<query>` with `<task>_val.json`, perhaps
 * `<task>_test.json`, and `<task>.safetensors`. Pictures are found from `pictures`. Throws CheckpointError for everything
 * that is not of this form.
 */
export async function readAuthors(folder: string, pictures: string): Promise<AuthorsTask[]> {
  const tasks: AuthorsTask[] = [];
  for (const name of await foldersIn(folder)) {
    const [examples, query] = name.split("-").map((part) => MODALITIES.find((m) => m === part));
    if (!examples || !query || name !== `${examples}-${query}`) {
      throw new CheckpointError(`${join(folder, name)}: expected a name such as text-image`);
    }
    tasks.push(...(await readDirection(join(folder, name), { examples, query }, pictures)));
  }
  if (tasks.length > 0) return tasks;
  throw new CheckpointError(`${folder}: expected folders such as text-image with <task>_val.json in them`);
}

async function foldersIn(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { withFileTypes: true }).catch((cause) => {
    throw new CheckpointError(`${folder}: ${(cause as Error).message}`, { cause });
  });
  return entries
    .filter((entry) => entry.isDirectory())
    .map(({ name }) => name)
    .sort();
}

async function readDirection(
  folder: string,
  direction: Pick<AuthorsTask, "examples" | "query">,
  pictures: string,
): Promise<AuthorsTask[]> {
  const files = (await readdir(folder)).sort();
  const names = new Set(
    files.map((file) => {
      const [, task] = /^(.+?)(?:_val\.json|_test\.json|\.safetensors)$/.exec(file) ?? [];
      if (task !== undefined) return task;
      throw new CheckpointError(
        `${join(folder, file)}: expected <task>_val.json, <task>_test.json or <task>.safetensors`,
      );
    }),
  );
  const tasks: AuthorsTask[] = [];
  for (const task of names) {
    const has = (split: string) => files.includes(`${task}_${split}.json`);
    if (!has("val")) {
      throw new CheckpointError(`${folder}: expected ${task}_val.json, which the task vectors come from`);
    }
    const splits: AuthorsSplit[] = [];
    for (const split of ["val", "test"] as const) {
      const file = join(folder, `${task}_${split}.json`);
      if (has(split)) splits.push(readSplit(await readJson(file), split, file, pictures));
    }
    const vectors = await readVectors(join(folder, `${task}.safetensors`));
    tasks.push({ ...direction, task, splits, vectors });
  }
  return tasks;
}

async function readVectors(path: string): Promise<Golden> {
  await using file = await GoldenFile.open(path);
  const vectors = await file.read("vectors", 2);
  if (vectors.values instanceof Float32Array && file.unread.length === 0) return vectors;
  throw new CheckpointError(
    `${path}: expected one tensor, vectors f32 [layers, width], found ${file.names.join(", ")}`,
  );
}

function readSplit(
  json: JsonObject,
  split: AuthorsSplit["split"],
  file: string,
  pictures: string,
): AuthorsSplit {
  const unknown = Object.keys(json).find((key) => !FIELDS.includes(key));
  if (unknown !== undefined) {
    throw new CheckpointError(`${file}: expected the fields ${FIELDS.join(", ")}; found "${unknown}"`);
  }
  const data = { split: split === "val" ? "validation" : "test" };
  const items = objects(json["items"], `${file}: items`).map((item, i) =>
    readItem({ ...item, ...data }, `${file}: items[${i}]`, `${pictures}/`),
  );
  if (items.length === 0) throw new CheckpointError(`${file}: expected at least one item`);
  const texts = (key: string, list = json[key]): string[] =>
    listOf(list, items.length, (text) => typeof text === "string", `${file}: ${key}`, "texts");
  const labels = texts("labels_text");
  items.forEach(({ outputs }, i) => {
    // They are the outputs, there and back through the tokenizer: a file whose lists are shifted is not taken.
    if (labels[i]!.trim() === outputs[0]!.trim()) return;
    throw new CheckpointError(
      `${file}: expected labels_text[${i}] to be ${JSON.stringify(outputs[0])}, found ${JSON.stringify(labels[i])}`,
    );
  });
  const drawn = listOf<unknown>(
    json["train_idxs"],
    items.length,
    Array.isArray,
    `${file}: train_idxs`,
    "lists",
  );
  const layers = json["hypothesis_text"];
  if (!Array.isArray(layers) || layers.length === 0) {
    throw new CheckpointError(`${file}: expected hypothesis_text to be a list of layers`);
  }
  return {
    file,
    split,
    items,
    drawn: drawn.map((list, i) => {
      const where = `${file}: train_idxs[${i}]`;
      const isOther = (index: unknown) =>
        Number.isInteger(index) && index !== i && (index as number) in items;
      const indices = listOf<number>(list, undefined, isOther, where, "indices of other items");
      if (indices.length > 0) return indices;
      throw new CheckpointError(`${where}: expected at least one example, where the vector is read`);
    }),
    noContext: texts("baseline_text"),
    prompt: texts("regular_text"),
    patched: layers.map((list, layer) => texts(`hypothesis_text[${layer}]`, list)),
  };
}

function listOf<T>(
  list: unknown,
  length: number | undefined,
  holds: (element: unknown) => boolean,
  where: string,
  words: string,
): T[] {
  const fits = Array.isArray(list) && (length === undefined || list.length === length);
  if (fits && list.every(holds)) return list as T[];
  throw new CheckpointError(
    `${where}: expected a list of ${length === undefined ? "" : `${length} `}${words}`,
  );
}
