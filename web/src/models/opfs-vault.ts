/// <reference path="../globals.d.ts" />
import { readFields, readList, readString } from "../document/read.ts";
import { readFile } from "./manifest.ts";
import { type KeptModel, NoRoomError, type PartWriter, type Vault } from "./vault.ts";

const FOLDER = "xpatch-models";
const PART = ".part";

/**
 * The origin's private file system: `files/<key>` and, of what is on its way, `files/<key>.part`; `models/<id>.json`. Reading works
 * anywhere, writing in workers alone, since only there bytes can be appended to a file in place.
 */
export class OpfsVault implements Vault {
  readonly name = "OPFS";
  readonly #files: FileSystemDirectoryHandle;
  readonly #models: FileSystemDirectoryHandle;

  private constructor(files: FileSystemDirectoryHandle, models: FileSystemDirectoryHandle) {
    this.#files = files;
    this.#models = models;
  }

  /** Undefined where the browser has none, or does not let this page have it. */
  static async open(): Promise<OpfsVault | undefined> {
    try {
      const root = await navigator.storage.getDirectory();
      const folder = await root.getDirectoryHandle(FOLDER, { create: true });
      return new OpfsVault(
        await folder.getDirectoryHandle("files", { create: true }),
        await folder.getDirectoryHandle("models", { create: true }),
      );
    } catch {
      return undefined;
    }
  }

  async whole(key: string): Promise<Blob | undefined> {
    return (await found(this.#files.getFileHandle(key)))?.getFile();
  }

  async part(key: string): Promise<Blob> {
    return (await (await found(this.#files.getFileHandle(key + PART)))?.getFile()) ?? new Blob([]);
  }

  async write(key: string, anew: boolean): Promise<PartWriter> {
    const handle = await this.#files.getFileHandle(key + PART, { create: true });
    const access = await handle.createSyncAccessHandle();
    if (anew) access.truncate(0);
    let at = access.getSize();
    return {
      async append(bytes) {
        const written = access.write(bytes, { at });
        if (written !== bytes.length) throw new NoRoomError("the browser's storage for this site is full");
        at += written;
      },
      async close() {
        access.flush();
        access.close();
      },
    };
  }

  async finish(key: string): Promise<void> {
    const handle = await this.#files.getFileHandle(key + PART);
    await handle.move(key);
  }

  async removeFile(key: string): Promise<void> {
    for (const name of [key, key + PART]) await found(this.#files.removeEntry(name));
  }

  async files(): Promise<Map<string, { bytes: number; whole: boolean }>> {
    const files = new Map<string, { bytes: number; whole: boolean }>();
    for await (const [name, handle] of this.#files.entries()) {
      // Gone in the meantime, where another tab has finished or removed it.
      const file =
        handle.kind === "file" ? await found((handle as FileSystemFileHandle).getFile()) : undefined;
      if (!file) continue;
      const whole = !name.endsWith(PART);
      files.set(whole ? name : name.slice(0, -PART.length), { bytes: file.size, whole });
    }
    return files;
  }

  async models(): Promise<KeptModel[]> {
    const models: KeptModel[] = [];
    for await (const [name, handle] of this.#models.entries()) {
      if (handle.kind !== "file") continue;
      const file = await found((handle as FileSystemFileHandle).getFile());
      const model = file && keptModel(name.replace(/\.json$/, ""), await file.text());
      if (model) models.push(model);
    }
    return models;
  }

  async addModel({ id, manifest }: KeptModel): Promise<void> {
    const handle = await this.#models.getFileHandle(`${id}.json`, { create: true });
    const access = await handle.createSyncAccessHandle();
    access.truncate(0);
    access.write(new TextEncoder().encode(JSON.stringify(manifest)), { at: 0 });
    access.close();
  }

  async removeModel(id: string): Promise<void> {
    await found(this.#models.removeEntry(`${id}.json`));
  }
}

/** What was kept by an earlier visit; undefined for what another version has written, which is as good as nothing. */
export function keptModel(id: string, text: string): KeptModel | undefined {
  try {
    const { title, files } = readFields(JSON.parse(text), id, ["title", "files", "id", "words"]);
    const manifest = { title: readString(title, "title"), files: readList(files, "files", readFile) };
    return { id, manifest };
  } catch {
    return undefined;
  }
}

/** Undefined for what is not there. */
async function found<T>(answer: Promise<T>): Promise<T | undefined> {
  try {
    return await answer;
  } catch (error) {
    if (error instanceof DOMException && error.name === "NotFoundError") return undefined;
    throw error;
  }
}
