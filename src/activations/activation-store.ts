import {
  aCount,
  aListOf,
  aString,
  aWholeFromOne,
  checkArgument,
  checkOptions,
  type Expected,
  either,
  type Options,
} from "../arguments.ts";
import { FileError, SiteError } from "../errors.ts";
import { INSPECT } from "../inspect.ts";
import { isObject } from "../model/checkpoint/json/config-reader.ts";
import {
  type Folder,
  localFolder,
  missingFile,
  readText,
  urlFolder,
} from "../model/checkpoint/source/folder.ts";
import { parseSite, type SiteName } from "../model/walk/sites.ts";
import { nearestHint } from "../nearest.ts";
import {
  MANIFEST,
  type Manifest,
  parseManifest,
  promptsFile,
  type StoredShard,
  shardFile,
} from "./manifest.ts";
import { readShardFile, type SiteRows } from "./shard-file.ts";
import { parsePrompt, type StoredPrompt } from "./stored-prompt.ts";

/** Some rows of one site of a store, in the order in which they were collected. */
export interface ActivationBatch extends SiteRows {
  readonly site: SiteName;
  /** Undefined at sites outside of the layers. */
  readonly layer: number | undefined;
  /** How long each vector is. */
  readonly width: number;
  readonly rows: number;
}

/** Which part of a store is read. */
export interface ReadActivationsOptions {
  /** Which sites; all unless given. */
  sites?: SiteName | readonly SiteName[];
  /** Which prompts, by their numbers: a range (`end` is not included), or a list. All unless given. */
  prompts?: { readonly start: number; readonly end: number } | readonly number[];
  /** Most rows of a batch. Default 4096. */
  batchRows?: number;
}

const aFolder: Expected = {
  words: "the path or URL of a folder, as a string, or a Folder",
  holds: (value) =>
    (typeof value === "string" && value !== "") || (isObject(value) && typeof value["open"] === "function"),
};
const aRange: Expected = {
  words: "{ start, end }, two whole numbers from 0",
  holds: (value) => isObject(value) && aCount.holds(value["start"]) && aCount.holds(value["end"]),
};
const OPTIONS: Options<ReadActivationsOptions> = {
  /** The sites that were collected. */
  sites: either(aString, aListOf(aString)),
  prompts: either(aRange, aListOf(aCount)),
  batchRows: aWholeFromOne,
};

/**
 * Opens an activation store, as `xpatch collect` and `collectActivations` write it: a folder, the URL of one, or any {@link Folder}. Throws
 * FileError for a folder that is none.
 */
export async function openActivations(folder: string | Folder): Promise<ActivationStore> {
  checkArgument("openActivations", "folder", folder, aFolder);
  const opened = typeof folder === "string" ? folderCalled(folder) : folder;
  const text = await readText(opened, MANIFEST);
  if (text === undefined) {
    throw new FileError(
      `${opened.name}: expected an activation store, which has ${missingFile(opened, MANIFEST)}, found none`,
    );
  }
  return new ActivationStore(opened, parseManifest(text, `${opened.name}/${MANIFEST}`));
}

function folderCalled(name: string): Folder {
  return /^https?:/i.test(name) ? urlFolder(name) : localFolder(name);
}

/**
 * The rows of an activation store, batch by batch: `for await (const { site, vectors } of readActivations("acts"))`. See
 * {@link ActivationStore.read}.
 */
export async function* readActivations(
  folder: string | Folder,
  options: ReadActivationsOptions = {},
): AsyncGenerator<ActivationBatch, void> {
  checkOptions("readActivations", options, OPTIONS);
  yield* (await openActivations(folder)).read(options);
}

/** A folder of activations. Nothing of it is in memory but the list of its shards. */
export class ActivationStore {
  readonly #folder: Folder;
  /** What it is of, and what it has. */
  readonly manifest: Manifest;

  /** Use {@link openActivations}. */
  constructor(folder: Folder, manifest: Manifest) {
    this.#folder = folder;
    this.manifest = manifest;
  }

  /** The folder, path or URL that it was opened by. */
  get name(): string {
    return this.#folder.name;
  }

  /** The sites that were collected. */
  get sites(): SiteName[] {
    return this.manifest.sites.map(({ site }) => site);
  }

  /** Number of prompts. */
  get prompts(): number {
    return this.manifest.shards.at(-1)?.prompts.end ?? 0;
  }

  /** Number of rows of all sites. */
  get rows(): number {
    return this.manifest.shards.reduce((sum, { rows }) => sum + rows.reduce((a, b) => a + b, 0), 0);
  }

  /**
   * The rows, in batches that are each of one site: shard by shard, and in each shard site by site. Files that have nothing that is asked
   * for are not opened.
   *
   * @throws SiteError for sites that the store lacks; FileError and CheckpointError for damaged or missing files, when their turn comes
   */
  async *read(options: ReadActivationsOptions = {}): AsyncGenerator<ActivationBatch, void> {
    checkOptions("read", options, OPTIONS);
    const { sites: asked = this.sites, prompts, batchRows = 4096 } = options;
    const wanted = new Set([asked].flat());
    for (const site of wanted) {
      if (this.sites.includes(site)) continue;
      throw new SiteError(
        `${this.name}: expected one of ${this.sites.join(", ")}, found ${site}${nearestHint(site, this.sites)}`,
      );
    }
    const keeps = filterOf(prompts);
    const { sites, files: kind, dtype, shards } = this.manifest;
    for (const [number, shard] of shards.entries()) {
      if (!keeps.some(shard.prompts)) continue;
      for (const [i, stored] of sites.entries()) {
        const rows = shard.rows[i]!;
        if (!wanted.has(stored.site) || rows === 0) continue;
        const source = await this.#open(shardFile(number, stored.site, kind));
        try {
          for await (const batch of readShardFile(source, stored, { rows, kind, dtype }, batchRows)) {
            const kept = keeps.all(shard.prompts) ? batch : filtered(batch, keeps.one, stored.width);
            if (kept.prompts.length === 0) continue;
            const { site, width } = stored;
            yield { ...kept, site, width, layer: parseSite(site).layer, rows: kept.prompts.length };
          }
        } finally {
          await source.close();
        }
      }
    }
  }

  /** The prompts, in order. Throws FileError for a damaged or missing file. */
  async *readPrompts({
    prompts,
  }: Pick<ReadActivationsOptions, "prompts"> = {}): AsyncGenerator<StoredPrompt, void> {
    const keeps = filterOf(prompts);
    for (const [number, shard] of this.manifest.shards.entries()) {
      if (!keeps.some(shard.prompts)) continue;
      for (const prompt of await this.#promptsOf(number, shard)) if (keeps.one(prompt.prompt)) yield prompt;
    }
  }

  async #promptsOf(number: number, { prompts: { start, end } }: StoredShard): Promise<StoredPrompt[]> {
    const file = promptsFile(number);
    const text = await readText(this.#folder, file);
    if (text === undefined) throw this.#missing(file);
    const where = `${this.name}/${file}`;
    const lines = text.split("\n").slice(0, -1);
    if (lines.length !== end - start) {
      throw new FileError(
        `${where}: expected ${end - start} prompts, as the store says, found ${lines.length}`,
      );
    }
    return lines.map((line, i) => parsePrompt(line, `${where}:${i + 1}`));
  }

  async #open(file: string) {
    const source = await this.#folder.open(file);
    if (source) return source;
    throw this.#missing(file);
  }

  #missing(file: string): FileError {
    return new FileError(
      `${this.name}: expected ${missingFile(this.#folder, file)}, which ${MANIFEST} names, found none`,
    );
  }

  [INSPECT](): string {
    const { model, complete, dtype } = this.manifest;
    const state = complete ? "" : ", not complete";
    return `ActivationStore of ${model}: ${this.rows} rows of ${this.sites.join(", ")} at ${this.prompts} prompts, ${dtype}${state}`;
  }
}

/** Which prompts are asked for: of a shard some, or all, or a single one. */
function filterOf(prompts: ReadActivationsOptions["prompts"]) {
  if (prompts === undefined) return { some: () => true, all: () => true, one: () => true };
  if ("start" in prompts) {
    const { start, end } = prompts;
    return {
      some: (shard: StoredShard["prompts"]) => shard.start < end && shard.end > start,
      all: (shard: StoredShard["prompts"]) => shard.start >= start && shard.end <= end,
      one: (prompt: number) => prompt >= start && prompt < end,
    };
  }
  const set = new Set(prompts);
  return {
    some: (shard: StoredShard["prompts"]) =>
      prompts.some((prompt) => prompt >= shard.start && prompt < shard.end),
    all: () => false,
    one: (prompt: number) => set.has(prompt),
  };
}

function filtered(rows: SiteRows, keeps: (prompt: number) => boolean, width: number): SiteRows {
  const kept = [...rows.prompts.keys()].filter((row) => keeps(rows.prompts[row]!));
  const pick = (values: Int32Array) => Int32Array.from(kept, (row) => values[row]!);
  const vectors = new Float32Array(kept.length * width);
  for (const [i, row] of kept.entries())
    vectors.set(rows.vectors.subarray(row * width, (row + 1) * width), i * width);
  return { prompts: pick(rows.prompts), positions: pick(rows.positions), tokens: pick(rows.tokens), vectors };
}
