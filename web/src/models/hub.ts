import { CheckpointError } from "../../../src/errors.ts";
import { isObject } from "../../../src/model/checkpoint/json/config-reader.ts";
import type { KnownFile, Manifest } from "./manifest.ts";

const HUB = "https://huggingface.co";
const ID = /^[\w-][\w.-]*\/[\w-][\w.-]*$/;
/** What a model is made of besides its tensors. */
const SMALL = /^[\w.-]+\.(json|jinja|txt|model)$/;
const TENSORS = /^[\w.-]+\.safetensors$/;
const INDEX = "model.safetensors.index.json";

export function isHubId(text: string): boolean {
  return ID.test(text);
}

/** What a model of the hub is kept under. */
export function hubKey(id: string): string {
  return `hub-${id.replace("/", "--")}`;
}

/** A file as the hub lists it. Of large ones it states the SHA-256, of small ones git's hash. */
interface Sibling {
  readonly rfilename: string;
  readonly size: number;
  readonly blobId: string;
  readonly lfs?: { readonly sha256: string; readonly size: number };
}

/**
 * The files of a model of the hub that are needed to run it, with the hashes that the hub states, all of one commit.
 *
 * @throws CheckpointError when there is no such model, or the hub does not say what is in it
 */
export async function hubManifest(id: string, signal: AbortSignal): Promise<Manifest> {
  const listed = await asked(`${HUB}/api/models/${id}?blobs=true`, id, signal);
  const { sha, siblings } = listed as { sha?: unknown; siblings?: unknown };
  if (typeof sha !== "string" || !Array.isArray(siblings))
    throw new CheckpointError(`${id}: the hub does not say which files it has`);
  const files = siblings as Sibling[];
  const url = (path: string) => `${HUB}/${id}/resolve/${sha}/${path}`;
  const has = (path: string) => files.some(({ rfilename }) => rfilename === path);
  const wanted = await tensorFiles(has, (path) => asked(url(path), id, signal));
  const chosen = files.filter(({ rfilename }) =>
    TENSORS.test(rfilename) ? (wanted?.has(rfilename) ?? true) : SMALL.test(rfilename),
  );
  if (!chosen.some(({ rfilename }) => TENSORS.test(rfilename)))
    throw new CheckpointError(`${id}: there are no .safetensors files in it`);
  const known = chosen.map(({ rfilename, size, blobId, lfs }): KnownFile => {
    const hash = lfs
      ? ({ algorithm: "sha256", hash: lfs.sha256 } as const)
      : ({ algorithm: "git", hash: blobId } as const);
    return { path: rfilename, bytes: lfs?.size ?? size, ...hash, url: url(rfilename) };
  });
  known.sort((a, b) => a.bytes - b.bytes);
  return { title: id, files: known };
}

/** Those that the index names, or the one file; undefined for all that there are. */
async function tensorFiles(
  has: (path: string) => boolean,
  read: (path: string) => Promise<unknown>,
): Promise<Set<string> | undefined> {
  if (has("model.safetensors")) return new Set(["model.safetensors"]);
  if (!has(INDEX)) return undefined;
  const index = await read(INDEX);
  const map = isObject(index) ? index["weight_map"] : undefined;
  return isObject(map) ? new Set(Object.values(map).map(String)) : undefined;
}

async function asked(url: string, id: string, signal: AbortSignal): Promise<unknown> {
  let response: Response;
  try {
    response = await fetch(url, { signal });
  } catch (cause) {
    signal.throwIfAborted();
    throw new CheckpointError(`${id}: the Hugging Face hub cannot be reached`, { cause });
  }
  if (response.ok) return response.json();
  const why =
    response.status === 401 || response.status === 403 || response.status === 404
      ? "there is no such model on the hub, or it is not public"
      : `the hub answered ${response.status} ${response.statusText}`.trimEnd();
  throw new CheckpointError(`${id}: ${why}`);
}
