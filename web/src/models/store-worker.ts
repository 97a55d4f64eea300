import { fetchModel, keptBytes, removeModel } from "./fetch-model.ts";
import { keyOf, type Manifest } from "./manifest.ts";
import { openVault } from "./open-vault.ts";
import type { StoreAnswer, StoreRequest } from "./store-messages.ts";
import { NoRoomError, type Vault } from "./vault.ts";

/* The worker that fetches and keeps models: only a worker can append to a file of the private file system. */

const vault = openVault();
const running = new Map<number, AbortController>();
/** The scope of a worker, whose types are not those of a page. */
const scope = globalThis as unknown as {
  postMessage(answer: StoreAnswer): void;
  onmessage: ((event: MessageEvent<StoreRequest>) => void) | null;
};

scope.onmessage = async ({ data }) => {
  if (data.type === "cancel") {
    running.get(data.request)?.abort(new DOMException("cancelled", "AbortError"));
    return;
  }
  const stop = new AbortController();
  running.set(data.id, stop);
  try {
    scope.postMessage(await answer(data, await vault, stop.signal));
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    scope.postMessage({ id: data.id, type: "failed", message });
  } finally {
    running.delete(data.id);
  }
};

async function answer(
  request: Exclude<StoreRequest, { type: "cancel" }>,
  kept: Vault | undefined,
  signal: AbortSignal,
): Promise<StoreAnswer> {
  const { id } = request;
  switch (request.type) {
    case "list": {
      if (!kept) return { id, type: "listed", kept: [] };
      return { id, type: "listed", kept: await keptBytes(kept), vault: kept.name };
    }
    case "remove":
      if (kept) await removeModel(kept, request.model);
      return { id, type: "removed" };
    case "fetch": {
      if (!kept) return { id, type: "fetched", why: "this browser lets the page keep nothing" };
      const { manifest, model } = request;
      try {
        await fetchModel(kept, model, manifest, {
          signal,
          onProgress: (progress) => scope.postMessage({ id, type: "progress", progress }),
        });
      } catch (error) {
        if (!(error instanceof NoRoomError)) throw error;
        await removeModel(kept, model); // half of it is of no use
        return { id, type: "fetched", why: error.message };
      }
      await removeModel(kept, undefined); // an earlier build of the same model
      return { id, type: "fetched", files: await filesOf(kept, manifest) };
    }
  }
}

async function filesOf(kept: Vault, { files }: Manifest): Promise<Map<string, Blob>> {
  const blobs = files.map(async (file) => [file.path, (await kept.whole(keyOf(file)))!] as const);
  return new Map(await Promise.all(blobs));
}
