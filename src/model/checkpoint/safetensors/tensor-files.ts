import { CheckpointError } from "../../../errors.ts";
import type { TensorEntry } from "../entries/tensor-entry.ts";
import { JsonReader } from "../json/json-reader.ts";
import { checkPath, type Folder, missingFile, readText } from "../source/folder.ts";
import { SafetensorsFile } from "./safetensors.ts";

const WEIGHTS = "model.safetensors";
const INDEX = "model.safetensors.index.json";

const PICKLE =
  "a pickle, which is not read: in Python, load the model with from_pretrained(folder) and save it with " +
  "save_pretrained(folder)";
/** Other files with weights, and what to say of them. */
const OTHER_WEIGHTS: readonly (readonly [path: string, advice: string])[] = [
  ["pytorch_model.bin", PICKLE],
  ["pytorch_model.bin.index.json", `the index of ${PICKLE}`],
  ["pytorch_model.pt", PICKLE],
  ["model.pt", PICKLE],
  ["consolidated.00.pth", "a pickle in Meta's own layout, which is not read: get the files for transformers"],
  ["consolidated.safetensors", "in Mistral's own layout, which is not read: get the files for transformers"],
  ["model-00001-of-00001.safetensors", `there, but counts only with an index; called ${WEIGHTS} it is read`],
];

/** What both kinds of tensor file offer. */
export interface TensorFile {
  readonly name: string;
  readonly metadata: ReadonlyMap<string, unknown>;
  readonly entries: readonly TensorEntry[];
  /** Closes the source. */
  close(): Promise<void>;
}

/** Files that whoever opens a checkpoint closes with it, or at once when something goes wrong. */
export type OpenFiles = TensorFile[];

export async function closeAll(files: readonly TensorFile[]): Promise<void> {
  await Promise.all(files.map((file) => file.close()));
}

/** A safetensors file of a folder; undefined when there is none. Throws CheckpointError. */
export async function openTensorFile(
  folder: Folder,
  path: string,
  opened: OpenFiles,
): Promise<SafetensorsFile | undefined> {
  const source = await folder.open(path);
  if (!source) return undefined;
  try {
    const file = await SafetensorsFile.open(source);
    opened.push(file);
    return file;
  } catch (error) {
    await source.close();
    throw error;
  }
}

/**
 * The tensors of model.safetensors or of all shards, by name; undefined when there is neither. The index decides between
 * tensors of one name; those of the shards that it does not mention count too, as in transformers 5. Throws CheckpointError.
 */
export async function openTensors(
  folder: Folder,
  opened: OpenFiles,
): Promise<Map<string, TensorEntry> | undefined> {
  const whole = await openTensorFile(folder, WEIGHTS, opened);
  if (whole) return new Map(whole.entries.map((e) => [e.name, e]));

  const where = `${folder.name}/${INDEX}`;
  const text = await readText(folder, INDEX);
  if (text === undefined) return undefined;
  const listed = new Map<string, TensorEntry>();
  const unlisted = new Map<string, TensorEntry>();
  for (const [path, names] of tensorsByShard(text, where)) {
    const shard = await openTensorFile(folder, path, opened);
    if (!shard) throw new CheckpointError(`${where} names ${missingFile(folder, path)}, which is missing`);
    for (const name of names) listed.set(name, shard.entry(name));
    for (const entry of shard.entries) unlisted.set(entry.name, entry);
  }
  return new Map([...unlisted, ...listed]);
}

/** {@link openTensors}, and a CheckpointError where there are none. */
export async function requireTensors(folder: Folder, opened: OpenFiles): Promise<Map<string, TensorEntry>> {
  const entries = await openTensors(folder, opened);
  if (entries) return entries;
  const missing = `${folder.name}: there is neither ${missingFile(folder, WEIGHTS)} nor ${missingFile(folder, INDEX)}`;
  for (const [path, advice] of OTHER_WEIGHTS) {
    const source = await folder.open(path);
    await source?.close();
    if (source) throw new CheckpointError(`${missing}; ${path} is ${advice}`);
  }
  throw new CheckpointError(missing);
}

/** The `weight_map` of an index file, by shard; shards in the order of their names. */
function tensorsByShard(text: string, where: string): [path: string, names: string[]][] {
  const shards = new Map<string, string[]>();
  let found = false;
  const json = new JsonReader(text, where);
  json.object((key) => {
    if (key !== "weight_map") return json.skip();
    found = true;
    json.object((name) => {
      const path = json.string();
      checkPath(path, where);
      const names = shards.get(path);
      if (names) names.push(name);
      else shards.set(path, [name]);
    });
  });
  json.end();
  if (!found) throw new CheckpointError(`${where}: there is no weight_map`);
  return [...shards].sort(([a], [b]) => (a < b ? -1 : 1));
}
