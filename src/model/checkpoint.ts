import { platform } from "#platform";
import type { ByteSource } from "../platform/platform.ts";
import { CheckpointError } from "../tensor/errors.ts";
import {
  checkPath,
  type Folder,
  type HubOptions,
  hubFolder,
  localFolder,
  localSource,
  urlFolder,
} from "./folder.ts";
import { GgufFile } from "./gguf.ts";
import { JsonReader } from "./json-reader.ts";
import { nearest } from "./nearest.ts";
import { SafetensorsFile } from "./safetensors.ts";
import { urlSource } from "./sources.ts";
import type { TensorEntry } from "./tensor-entry.ts";

const WEIGHTS = "model.safetensors";
const INDEX = "model.safetensors.index.json";
/** The largest real tokenizer.json files have about 35 MB. */
const MAX_TEXT_BYTES = 256 * 2 ** 20;
/** Missing tensors that a message spells out. */
const MAX_LISTED = 8;

/** What both kinds of tensor file offer. */
export interface TensorFile {
  readonly name: string;
  readonly metadata: ReadonlyMap<string, unknown>;
  readonly entries: readonly TensorEntry[];
  close(): Promise<void>;
}

export type CheckpointOptions = HubOptions;

/** A model as it lies on disk: its config, its tensors over all shards, and its other files. */
export class Checkpoint {
  /** The folder, URL or hub id that it was opened from. */
  readonly name: string;
  /** config.json, or undefined for a lone file. */
  readonly config: Readonly<Record<string, unknown>> | undefined;
  /** The open tensor files, in the order of their names. */
  readonly files: readonly TensorFile[];
  readonly #folder: Folder | undefined;
  readonly #entries: ReadonlyMap<string, TensorEntry>;

  constructor(
    name: string,
    files: readonly TensorFile[],
    entries: ReadonlyMap<string, TensorEntry>,
    folder?: Folder,
    config?: Readonly<Record<string, unknown>>,
  ) {
    this.name = name;
    this.config = config;
    this.files = files;
    this.#folder = folder;
    this.#entries = entries;
  }

  get names(): string[] {
    return [...this.#entries.keys()];
  }

  get entries(): TensorEntry[] {
    return [...this.#entries.values()];
  }

  /** Bytes of all tensors in the files. */
  get storedBytes(): number {
    return this.entries.reduce((sum, entry) => sum + entry.storedBytes, 0);
  }

  /** The files' own words for the dtypes of the tensors, most bytes first. */
  get storedDtypes(): string[] {
    const bytes = new Map<string, number>();
    for (const { stored, storedBytes } of this.#entries.values()) {
      bytes.set(stored, (bytes.get(stored) ?? 0) + storedBytes);
    }
    return [...bytes].sort((a, b) => b[1] - a[1]).map(([dtype]) => dtype);
  }

  has(name: string): boolean {
    return this.#entries.has(name);
  }

  /** Throws CheckpointError with the nearest present name when there is no such tensor. */
  entry(name: string): TensorEntry {
    this.require([name]);
    return this.#entries.get(name)!;
  }

  /** Throws one CheckpointError that lists those of `names` that are missing, each with the nearest present name. */
  require(names: Iterable<string>): void {
    const missing = [...names].filter((name) => !this.#entries.has(name));
    if (missing.length === 0) return;
    const lines = missing.slice(0, MAX_LISTED).map((name) => {
      const near = nearest(name, this.#entries.keys());
      return near === undefined ? name : `${name} (the nearest is ${near})`;
    });
    if (missing.length > MAX_LISTED) lines.push(`and ${missing.length - MAX_LISTED} more`);
    throw new CheckpointError(`${this.name} has no tensor ${lines.join(", ")}`);
  }

  /** Another file of the folder as text; undefined when there is none. Throws CheckpointError. */
  async text(path: string): Promise<string | undefined> {
    return this.#folder && readText(this.#folder, path);
  }

  /** Another file of the folder as JSON; undefined when there is none. Throws CheckpointError. */
  async json(path: string): Promise<unknown> {
    return this.#folder && readJson(this.#folder, path);
  }

  async close(): Promise<void> {
    await closeAll(this.files);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/**
 * Opens a checkpoint without reading its tensors. `ref` is a local folder, the URL of one (the server has to answer
 * range requests), a hub id such as `org/name`, or any {@link Folder}. Offline, give the snapshot folder of the hub's
 * cache. A path or URL that ends in .safetensors or .gguf opens that file alone, for inspection: without config, and
 * with a GGUF's own tensor names. Throws CheckpointError.
 */
export async function openCheckpoint(
  ref: string | Folder,
  options: CheckpointOptions = {},
): Promise<Checkpoint> {
  if (typeof ref !== "string") return openFolder(ref);
  const isUrl = /^https?:\/\//i.test(ref);
  const [, suffix] = /\.(safetensors|gguf)$/i.exec(isUrl ? new URL(ref).pathname : ref) ?? [];
  if (suffix) {
    const source = isUrl ? await urlSource(ref, options.fetch) : await localSource(ref);
    if (!source) throw new CheckpointError(`${ref}: no such file`);
    return openFile(source, suffix.toLowerCase() === "gguf");
  }
  if (isUrl) return openFolder(urlFolder(ref, options.fetch));
  if (platform.name === "node") {
    const probe = await localSource(`${ref}/config.json`);
    await probe?.close();
    if (probe) return openFolder(localFolder(ref));
  }
  if (/^[\w-][\w.-]*\/[\w-][\w.-]*$/.test(ref)) return openFolder(await hubFolder(ref, options));
  throw new CheckpointError(`${ref}: not a folder with a config.json, nor a URL, nor a hub id like org/name`);
}

async function openFile(source: ByteSource, isGguf: boolean): Promise<Checkpoint> {
  try {
    const file = await (isGguf ? GgufFile : SafetensorsFile).open(source);
    return new Checkpoint(source.name, [file], new Map(file.entries.map((e) => [e.name, e])));
  } catch (error) {
    await source.close();
    throw error;
  }
}

async function openFolder(folder: Folder): Promise<Checkpoint> {
  const config = await readJson(folder, "config.json");
  if (config === undefined) throw new CheckpointError(`${folder.name}: there is no config.json`);
  if (typeof config !== "object" || config === null || Array.isArray(config)) {
    throw new CheckpointError(`${folder.name}/config.json: expected an object`);
  }
  const files: SafetensorsFile[] = [];
  try {
    const entries = await openWeights(folder, files);
    return new Checkpoint(folder.name, files, entries, folder, config as Record<string, unknown>);
  } catch (error) {
    await closeAll(files);
    throw error;
  }
}

/** Opens the tensor file or all shards, adding each to `opened` at once, so that the caller can close them on error. */
async function openWeights(folder: Folder, opened: SafetensorsFile[]): Promise<Map<string, TensorEntry>> {
  const open = async (path: string): Promise<SafetensorsFile | undefined> => {
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
  };

  const whole = await open(WEIGHTS);
  if (whole) return new Map(whole.entries.map((e) => [e.name, e]));

  const where = `${folder.name}/${INDEX}`;
  const text = await readText(folder, INDEX);
  if (text === undefined) {
    throw new CheckpointError(`${folder.name}: there is neither ${WEIGHTS} nor ${INDEX}`);
  }
  const entries = new Map<string, TensorEntry>();
  for (const [path, names] of tensorsByShard(text, where)) {
    const shard = await open(path);
    if (!shard) throw new CheckpointError(`${where} names ${path}, which is missing`);
    for (const name of names) entries.set(name, shard.entry(name));
  }
  return entries;
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

async function readText(folder: Folder, path: string): Promise<string | undefined> {
  checkPath(path, folder.name);
  const source = await folder.open(path);
  if (!source) return undefined;
  try {
    if (source.size > MAX_TEXT_BYTES) {
      throw new CheckpointError(
        `${source.name}: ${source.size} bytes are over the limit of ${MAX_TEXT_BYTES}`,
      );
    }
    const bytes = await source.read(0, source.size);
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    throw new CheckpointError(`${source.name}: not UTF-8`, { cause: error });
  } finally {
    await source.close();
  }
}

async function readJson(folder: Folder, path: string): Promise<unknown> {
  const text = await readText(folder, path);
  if (text === undefined) return undefined;
  try {
    return JSON.parse(text);
  } catch (cause) {
    const problem = cause instanceof Error ? cause.message : String(cause);
    throw new CheckpointError(`${folder.name}/${path}: not valid JSON: ${problem}`, { cause });
  }
}

async function closeAll(files: readonly TensorFile[]): Promise<void> {
  await Promise.all(files.map((file) => file.close()));
}
