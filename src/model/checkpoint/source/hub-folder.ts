import { platform } from "#platform";
import { CheckpointError } from "../../../errors.ts";
import type { Fetch } from "../../../platform/global-types.ts";
import type { ByteSource } from "../../../platform/platform.ts";
import { countingFetch } from "./counting-fetch.ts";
import { type Folder, localSource } from "./folder.ts";
import { headerFirst } from "./header-first.ts";
import { joinedReads } from "./joined-reads.ts";
import { retrying } from "./retry.ts";
import { blobSource } from "./sources.ts";

/** How far the download of a file is. */
export interface DownloadProgress {
  /** Its path in the repository. */
  readonly file: string;
  readonly downloadedBytes: number;
  readonly totalBytes: number;
}

export interface HubOptions {
  /** Branch, tag or commit; the newest commit of the main branch unless given. */
  revision?: string;
  /** For gated and private models. */
  accessToken?: string;
  /** To use instead of the global fetch, for example to count bytes or go through a proxy. */
  fetch?: Fetch;
  /** Called while a file with weights is downloaded from the hub to its cache (in Node). */
  onDownload?: (progress: DownloadProgress) => void;
}

/**
 * A model of the Hugging Face hub. All files are of one commit, looked up once. In Node they are downloaded to the
 * standard cache, which Python's library shares (`HF_HOME`, `HF_HUB_CACHE`), those with tensors when the first tensor is read; in a
 * browser these are read by ranges.
 */
export async function hubFolder(id: string, options: HubOptions = {}): Promise<Folder> {
  const hub = await import("@huggingface/hub");
  const { revision, fetch = globalThis.fetch, onDownload, ...rest } = options;
  const access = { ...rest, fetch: retrying(fetch) };
  const asked = <T>(answer: Promise<T>): Promise<T> =>
    answer.catch((cause: Error) => {
      const hint = platform.baseUrl() ? `; a folder beside the page is ./${id}` : "";
      throw new CheckpointError(
        `${id}: cannot be fetched from the Hugging Face hub: ${cause.message}${hint}`,
        {
          cause,
        },
      );
    });
  const { sha, filePaths } = await asked(
    hub.modelInfo({ ...access, name: id, revision, additionalFields: ["sha", "filePaths"] }),
  );
  return {
    name: id,
    async open(path) {
      if (!filePaths.includes(path)) return undefined;
      const file = { ...access, repo: id, path, revision: sha };
      const downloaded = async (progress?: (bytes: number) => void): Promise<ByteSource> => {
        const counted = progress ? { ...file, fetch: countingFetch(file.fetch, progress) } : file;
        return platform.openFile(await asked(hub.downloadFileToCacheDir(counted)));
      };
      const hasTensors = /\.safetensors$/.test(path);
      if (platform.name === "node") {
        if (!hasTensors) return downloaded();
        const repository = hub.getRepoFolderName({ name: id, type: "model" });
        const cached = await localSource(`${hub.getHFHubCachePath()}/${repository}/snapshots/${sha}/${path}`);
        if (cached) return cached;
      }
      const blob = await asked(hub.downloadFile(file));
      if (!blob) return undefined;
      const remote = blobSource(blob, `${id}/${path}`);
      if (platform.name !== "node") return joinedReads(remote);
      return headerFirst(remote, () =>
        downloaded((bytes) =>
          onDownload?.({ file: path, downloadedBytes: Math.min(bytes, blob.size), totalBytes: blob.size }),
        ),
      );
    },
  };
}
