import { platform } from "#platform";
import type { ByteSource } from "../platform/platform.ts";
import { CheckpointError } from "../tensor/errors.ts";
import { blobSource, memorySource, urlSource } from "./sources.ts";

/** Where a checkpoint's files are: a local folder, a URL prefix, the hub, or memory. */
export interface Folder {
  readonly name: string;
  /** Opens the file at a path that {@link checkPath} has let through; undefined when there is none. */
  open(path: string): Promise<ByteSource | undefined>;
}

/** Paths relative to a folder, with `/`, that cannot leave it. Throws CheckpointError for all others. */
export function checkPath(path: string, where: string): void {
  const plain = (segment: string) => segment !== "" && segment !== "." && segment !== "..";
  if (/[\\:\0]/.test(path) || !path.split("/").every(plain)) {
    throw new CheckpointError(`${where}: ${JSON.stringify(path)} is not a path inside the folder`);
  }
}

/** Node only. */
export function localFolder(path: string): Folder {
  return { name: path, open: (file) => localSource(`${path}/${file}`) };
}

/** A local file; undefined when there is none. Node only. */
export async function localSource(path: string): Promise<ByteSource | undefined> {
  try {
    return await platform.openFile(path);
  } catch (error) {
    const code = error instanceof CheckpointError ? (error.cause as { code?: unknown })?.code : undefined;
    if (code === "ENOENT" || code === "ENOTDIR") return undefined;
    throw error;
  }
}

/** A folder served over HTTP by a server that does range requests. */
export function urlFolder(url: string, fetch = globalThis.fetch): Folder {
  const prefix = url.replace(/\/+$/, "");
  return {
    name: prefix,
    open: (path) => urlSource(`${prefix}/${path.split("/").map(encodeURIComponent).join("/")}`, fetch),
  };
}

/** Files in memory, by path: what a user dropped on a page, or made by a test. */
export function memoryFolder(files: ReadonlyMap<string, Uint8Array | Blob>, name = "memory"): Folder {
  return {
    name,
    async open(path) {
      const file = files.get(path);
      if (file instanceof Blob) return blobSource(file, `${name}/${path}`);
      return file && memorySource(file, `${name}/${path}`);
    },
  };
}

export interface HubOptions {
  /** Branch, tag or commit; the newest commit of the main branch unless given. */
  revision?: string;
  /** For gated and private models. */
  accessToken?: string;
  /** To use instead of the global fetch, for example to count bytes or go through a proxy. */
  fetch?: typeof globalThis.fetch;
}

/**
 * A model of the Hugging Face hub. All files are of one commit, looked up once. In Node they are downloaded to the
 * standard cache, which Python's library shares (`HF_HOME`, `HF_HUB_CACHE`); in a browser they are read by ranges.
 */
export async function hubFolder(id: string, options: HubOptions = {}): Promise<Folder> {
  const hub = await import("@huggingface/hub");
  const { revision, ...access } = options;
  const asked = <T>(answer: Promise<T>): Promise<T> =>
    answer.catch((cause: Error) => {
      throw new CheckpointError(`${id}: cannot be had from the Hugging Face hub: ${cause.message}`, {
        cause,
      });
    });
  const { sha, filePaths } = await asked(
    hub.modelInfo({ ...access, name: id, revision, additionalFields: ["sha", "filePaths"] }),
  );
  return {
    name: id,
    async open(path) {
      if (!filePaths.includes(path)) return undefined;
      const file = { ...access, repo: id, path, revision: sha };
      if (platform.name === "node") return localSource(await asked(hub.downloadFileToCacheDir(file)));
      const blob = await asked(hub.downloadFile(file));
      return blob ? blobSource(blob, `${id}/${path}`) : undefined;
    },
  };
}
