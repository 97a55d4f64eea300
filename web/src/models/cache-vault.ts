import { keptModel } from "./opfs-vault.ts";
import type { KeptModel, PartWriter, Vault } from "./vault.ts";

const NAME = "xpatch-models";
/** Entries of a cache are written whole: a file is several of them, each of this many bytes but the last. */
const PIECE_BYTES = 8 * 2 ** 20;

/** The Cache API, where there is no private file system (private windows of some browsers). A file is a row of pieces. */
export class CacheVault implements Vault {
  readonly name = "Cache API";
  readonly #cache: Cache;

  private constructor(cache: Cache) {
    this.#cache = cache;
  }

  /** Undefined where the browser has none, or does not let this page have it. */
  static async open(): Promise<CacheVault | undefined> {
    try {
      return new CacheVault(await caches.open(NAME));
    } catch {
      return undefined;
    }
  }

  async whole(key: string): Promise<Blob | undefined> {
    return (await this.#cache.match(address("whole", key))) ? this.part(key) : undefined;
  }

  async part(key: string): Promise<Blob> {
    const pieces: Blob[] = [];
    for (;;) {
      const piece = await this.#cache.match(address("piece", key, pieces.length));
      if (!piece) return new Blob(pieces);
      pieces.push(await piece.blob());
    }
  }

  async write(key: string, anew: boolean): Promise<PartWriter> {
    if (anew) await this.removeFile(key);
    const before = await this.part(key);
    // The last piece may be a short one: it is written again with what comes behind it.
    let index = Math.floor(before.size / PIECE_BYTES);
    let waiting: BlobPart[] = [before.slice(index * PIECE_BYTES)];
    let bytes = before.size % PIECE_BYTES;
    const put = async (size: number) => {
      const all = new Blob(waiting);
      await this.#cache.put(address("piece", key, index), new Response(all.slice(0, size)));
      waiting = [all.slice(size)];
      bytes -= size;
      index++;
    };
    return {
      async append(part) {
        waiting.push(part);
        bytes += part.length;
        while (bytes >= PIECE_BYTES) await put(PIECE_BYTES);
      },
      async close() {
        if (bytes > 0) await put(bytes);
      },
    };
  }

  async finish(key: string): Promise<void> {
    await this.#cache.put(address("whole", key), new Response(""));
  }

  async removeFile(key: string): Promise<void> {
    await this.#cache.delete(address("whole", key));
    for (let i = 0; await this.#cache.delete(address("piece", key, i)); i++);
  }

  async files(): Promise<Map<string, { bytes: number; whole: boolean }>> {
    const files = new Map<string, { bytes: number; whole: boolean }>();
    for (const key of await this.#keys("piece")) {
      const { size } = await this.part(key);
      files.set(key, { bytes: size, whole: (await this.#cache.match(address("whole", key))) !== undefined });
    }
    return files;
  }

  async models(): Promise<KeptModel[]> {
    const models: KeptModel[] = [];
    for (const id of await this.#keys("model")) {
      const kept = await this.#cache.match(address("model", id));
      const model = kept && keptModel(id, await kept.text());
      if (model) models.push(model);
    }
    return models;
  }

  async addModel({ id, manifest }: KeptModel): Promise<void> {
    await this.#cache.put(address("model", id), new Response(JSON.stringify(manifest)));
  }

  async removeModel(id: string): Promise<void> {
    await this.#cache.delete(address("model", id));
  }

  async #keys(kind: string): Promise<Set<string>> {
    const requests = await this.#cache.keys();
    const parts = requests.map(({ url }) => new URL(url).pathname.split("/").slice(-3));
    return new Set(parts.filter(([found]) => found === kind).map(([, key]) => decodeURIComponent(key!)));
  }
}

/** Entries of a cache have addresses; nothing is ever fetched from these. */
function address(kind: "piece" | "whole" | "model", key: string, index = 0): string {
  return `/xpatch-models/${kind}/${encodeURIComponent(key)}/${index}`;
}
