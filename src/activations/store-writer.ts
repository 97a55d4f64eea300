import { platform } from "#platform";
import { FileError } from "../errors.ts";
import { localFolder, readText } from "../model/checkpoint/source/folder.ts";
import { hashPrompts, type Prompt } from "../model/prompt/prompt.ts";
import { picturesOf } from "../model/prompt/prompt-image.ts";
import {
  encodeManifest,
  MANIFEST,
  type Manifest,
  parseManifest,
  promptsFile,
  type StoredShard,
  type StoreSetting,
  settingChange,
  shardFile,
} from "./manifest.ts";
import { encodeShardFile, type PromptRows } from "./shard-file.ts";
import { encodePrompt } from "./stored-prompt.ts";

/** Bytes that a token of a prompt counts as, beside the vectors: where few positions are collected, prompts are most of a shard. */
const TOKEN_BYTES = 16;

/** What is kept of a prompt until its shard is written; pictures would be most of the memory. */
interface KeptPrompt extends Pick<Prompt, "text" | "ids" | "tokens" | "spans"> {
  readonly answer?: Pick<Prompt, "ids"> | undefined;
  /** Hashes of its pictures. */
  readonly pictures: readonly number[];
}

function withoutPictures(prompt: Prompt): KeptPrompt {
  const { text, ids, tokens, spans, answer } = prompt;
  const pictures = picturesOf(prompt).map(({ data }) => hashBytes(data));
  return { text, ids, tokens, spans, answer: answer && { ids: answer.ids }, pictures };
}

/** 32-bit FNV-1a over the bytes of numbers. */
function hashBytes({ buffer, byteOffset, byteLength }: ArrayBufferView): number {
  let hash = 0x811c9dc5;
  for (const byte of new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength))
    hash = Math.imul(hash ^ byte, 0x01000193);
  return hash >>> 0;
}

/** A hash of prompts by their ids, and of their pictures where there are any. */
function hashOf(prompts: readonly KeptPrompt[]): string {
  const pictures = prompts.flatMap((prompt) => prompt.pictures);
  const ids = hashPrompts(prompts as readonly Pick<Prompt, "ids" | "answer">[]);
  if (pictures.length === 0) return ids;
  return `${ids}-${hashBytes(Uint32Array.from(pictures)).toString(16).padStart(8, "0")}`;
}

/**
 * Writes an activation store, or goes on with one. Shards are written file by file, each whole or not at all, and count from when the
 * manifest names them: whatever ends the program, what the manifest names is there, and the rest is written again.
 */
export class StoreWriter {
  readonly folder: string;
  readonly #setting: StoreSetting;
  readonly #shards: StoredShard[];
  #complete: boolean;
  /** Prompts that were given, those that are in the store already among them. */
  #given = 0;
  /** Of the shard in hand, and of one in the store whose prompts come by again. */
  #prompts: KeptPrompt[] = [];
  #parts: PromptRows[][];
  #bytes = 0;

  private constructor(
    folder: string,
    setting: StoreSetting,
    { shards, complete }: Pick<Manifest, "shards" | "complete">,
  ) {
    this.folder = folder;
    this.#setting = setting;
    this.#shards = [...shards];
    this.#complete = complete;
    this.#parts = setting.sites.map(() => []);
  }

  /** Throws FileError for a folder that has other things in it, or a store of another setting; nothing is written then. */
  static async open(folder: string, setting: StoreSetting): Promise<StoreWriter> {
    const before = await storeToGoOnWith(folder, setting);
    const writer = new StoreWriter(folder, setting, before ?? { shards: [], complete: false });
    if (before) return writer;
    await platform.makeFolder(folder);
    await writer.#saveManifest();
    return writer;
  }

  /** Prompts that are in finished shards. */
  get stored(): number {
    return this.#shards.at(-1)?.prompts.end ?? 0;
  }

  /**
   * Takes the next prompt, and gives its number in the store if its rows are to be {@link add}ed, in this order; undefined where they are
   * there already. Throws FileError where the store has another prompt in its place.
   */
  next(prompt: Prompt): number | undefined {
    const index = this.#given++;
    if (index >= this.stored) return index;
    this.#prompts.push(withoutPictures(prompt));
    const shard = this.#shards.find(({ prompts }) => prompts.end === index + 1);
    if (!shard) return undefined;
    if (hashOf(this.#prompts) !== shard.promptHash) {
      const { start, end } = shard.prompts;
      throw new FileError(
        `${this.folder}: prompts ${start} to ${end - 1} are others than those that the store was begun with; take another folder`,
      );
    }
    this.#prompts = [];
    return undefined;
  }

  /** Rows of a prompt that {@link next} gave a number, a part for each site. Writes the shard when it is large enough. */
  async add(prompt: Prompt, rows: readonly PromptRows[]): Promise<void> {
    if (this.#complete) await this.#reopen();
    this.#prompts.push(withoutPictures(prompt));
    this.#bytes += TOKEN_BYTES * prompt.length;
    for (const [i, part] of rows.entries()) {
      this.#parts[i]!.push(part);
      this.#bytes += part.vectors.length * (this.#setting.dtype === "f32" ? 4 : 2);
    }
    if (this.#bytes >= this.#setting.shardBytes) await this.#flush();
  }

  /** Writes what is left. Throws FileError where the store has more prompts than were given. */
  async finish(): Promise<void> {
    if (this.#given < this.stored) {
      throw new FileError(
        `${this.folder}: expected the ${this.stored} prompts that are in the store, and perhaps more, found ${this.#given}`,
      );
    }
    if (this.#prompts.length > 0) await this.#flush();
    if (this.#complete) return;
    this.#complete = true;
    await this.#saveManifest();
  }

  /** A store that was complete grows. */
  async #reopen(): Promise<void> {
    this.#complete = false;
    await this.#saveManifest();
  }

  async #flush(): Promise<void> {
    const { sites, files: kind, dtype, model } = this.#setting;
    const shard = this.#shards.length;
    const [prompts, parts] = [this.#prompts, this.#parts];
    for (const [i, site] of sites.entries()) {
      const content = encodeShardFile(site, parts[i]!, { kind, dtype, model });
      await platform.writeFile(`${this.folder}/${shardFile(shard, site.site, kind)}`, content);
    }
    const start = this.stored;
    const lines = prompts.map((prompt, i) => encodePrompt(start + i, prompt));
    await platform.writeFile(`${this.folder}/${promptsFile(shard)}`, `${lines.join("\n")}\n`);
    this.#shards.push({
      prompts: { start, end: start + prompts.length },
      promptHash: hashOf(prompts),
      rows: parts.map((each) => each.reduce((sum, { positions }) => sum + positions.length, 0)),
    });
    await this.#saveManifest();
    this.#prompts = [];
    this.#parts = sites.map(() => []);
    this.#bytes = 0;
  }

  #saveManifest(): Promise<unknown> {
    const manifest = { ...this.#setting, complete: this.#complete, shards: this.#shards };
    return platform.writeFile(`${this.folder}/${MANIFEST}`, encodeManifest(manifest));
  }
}

/**
 * The manifest of the store that a folder has; undefined where it has none yet. Throws FileError for a folder that has other things in
 * it, or a store of another setting.
 */
export async function storeToGoOnWith(folder: string, setting: StoreSetting): Promise<Manifest | undefined> {
  const text = await readText(localFolder(folder), MANIFEST);
  if (text !== undefined) {
    const before = parseManifest(text, `${folder}/${MANIFEST}`);
    const change = settingChange(before, setting);
    if (change === undefined) return before;
    throw new FileError(
      `${folder}: expected to go on with what was begun there, but it was begun with ${change}; take another folder`,
    );
  }
  const present = (await platform.filesIn(folder)) ?? [];
  const others = present.filter((name) => name !== "lock" && !name.endsWith(".tmp"));
  if (others.length === 0) return undefined;
  throw new FileError(
    `${folder}: expected an empty folder, or one with ${MANIFEST} to go on with, found ${others.slice(0, 3).join(", ")}`,
  );
}
