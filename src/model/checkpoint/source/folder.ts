import { platform } from "#platform";
import { CheckpointError } from "../../../errors.ts";
import type { Blob, Fetch } from "../../../platform/global-types.ts";
import { lfsPointerProblem } from "../../../platform/lfs-pointer.ts";
import type { ByteSource } from "../../../platform/platform.ts";
import { isObject, type JsonObject } from "../json/config-reader.ts";
import { parsePythonJson } from "../json/python-json.ts";
import { publicName } from "./remote-file.ts";
import { blobSource, memorySource } from "./sources.ts";
import { openUrl } from "./url-source.ts";

/** The largest real tokenizer.json files have about 35 MB. */
const MAX_TEXT_BYTES = 256 * 2 ** 20;

/** Where a checkpoint's files are: a local folder, a URL prefix, the hub, or memory. */
export interface Folder {
  readonly name: string;
  /** Opens the file at a path below the folder, its parts with `/` between them; undefined when there is none. */
  open(path: string): Promise<ByteSource | undefined>;
  /** What stood in the way where `open` found nothing, if there is more to say about it than that. */
  whyMissing?(path: string): string | undefined;
}

/** Words for a file that is not there: its path, and why where that is known. */
export function missingFile(folder: Folder, path: string): string {
  const why = folder.whyMissing?.(path);
  return why ? `${path} (${why})` : path;
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

/** A folder served over HTTP. A query or fragment of its URL goes behind the path of each file. */
export function urlFolder(url: string, fetch: Fetch = globalThis.fetch): Folder {
  const base = new URL(url);
  const root = base.pathname.replace(/\/+$/, "");
  const absent = new Map<string, string>();
  return {
    name: publicName(url).replace(/\/+$/, ""),
    async open(path) {
      const address = new URL(base);
      address.pathname = `${root}/${path.split("/").map(encodeURIComponent).join("/")}`;
      const opened = await openUrl(address.href, fetch);
      if (!("absent" in opened)) return opened;
      absent.set(path, opened.absent);
      return undefined;
    },
    whyMissing: (path) => absent.get(path),
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

/**
 * The folder at a relative path in another, or beside it (`../llm`). What it opens is asked of the outer one, so that it
 * lies wherever that does.
 */
export function subfolder(folder: Folder, path: string): Folder {
  if (path === ".") return folder;
  return {
    name: withoutParents(`${folder.name}/${path}`),
    open: (file) => folder.open(withoutParents(`${path}/${file}`)),
    whyMissing: (file) => folder.whyMissing?.(withoutParents(`${path}/${file}`)),
  };
}

/** The path with each `name/..` taken out; of `xpatch:vlm/../llm` that is `xpatch:llm`. */
function withoutParents(path: string): string {
  for (let shorter = path, longer: string; ; ) {
    longer = shorter;
    shorter = longer.replace(/(^[a-z]+:|^|\/)(?!\.{1,2}\/)[^/]+\/\.\.\//, "$1");
    if (shorter === longer) return shorter;
  }
}

/** The files of the first folder and, where it lacks one, those of the second. */
export function overlay(first: Folder, second: Folder): Folder {
  return {
    name: first.name,
    open: async (path) => (await first.open(path)) ?? second.open(path),
    whyMissing: (path) => first.whyMissing?.(path) ?? second.whyMissing?.(path),
  };
}

/** A file as text; undefined when there is none. Throws CheckpointError. */
export async function readText(folder: Folder, path: string): Promise<string | undefined> {
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
    const problem = lfsPointerProblem(bytes);
    if (problem) throw new CheckpointError(`${source.name}: ${problem}`);
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    throw new CheckpointError(`${source.name}: not UTF-8`, { cause: error });
  } finally {
    await source.close();
  }
}

/** A file as JSON, Python's Infinity and NaN included; undefined when there is none. Throws CheckpointError. */
export async function readJson(folder: Folder, path: string): Promise<unknown> {
  const text = await readText(folder, path);
  if (text === undefined) return undefined;
  try {
    return parsePythonJson(text);
  } catch (cause) {
    const problem = cause instanceof Error ? cause.message : String(cause);
    throw new CheckpointError(`${folder.name}/${path}: not valid JSON: ${problem}`, { cause });
  }
}

/** A file that holds a JSON object; undefined when there is none. Throws CheckpointError. */
export async function readJsonObject(folder: Folder, path: string): Promise<JsonObject | undefined> {
  const json = await readJson(folder, path);
  if (json === undefined || isObject(json)) return json;
  throw new CheckpointError(`${folder.name}/${path}: expected an object`);
}
