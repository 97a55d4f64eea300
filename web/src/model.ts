import { effect, signal } from "@preact/signals";
import type { SessionClient } from "../../src/session/client.ts";
import type { ParamsOf } from "../../src/session/messages/requests.ts";
import type { ModelSummary } from "../../src/session/messages/results.ts";
import type { FileMap } from "../../src/session/messages/values.ts";
import type { ModelChoice } from "./document/document.ts";
import { modelStore } from "./model-store.ts";
import { hubKey, hubManifest, isHubId } from "./models/hub.ts";
import type { Manifest } from "./models/manifest.ts";
import { offered } from "./offered.ts";
import { lookAtAdapter, noteError, session } from "./session.ts";
import { store } from "./state.ts";
import { toast } from "./ui/toasts.tsx";

export type ModelState =
  | { readonly status: "none" }
  | {
      /** Files come into the browser, then onto the device. */
      readonly status: "fetching" | "loading";
      readonly choice: ModelChoice;
      readonly done: number;
      readonly total: number | undefined;
      readonly file?: string;
    }
  | {
      readonly status: "ready";
      readonly choice: ModelChoice;
      readonly summary: ModelSummary;
      /** Tells it from every other that was loaded, in this session or another. */
      readonly serial: number;
    }
  | { readonly status: "failed"; readonly choice: ModelChoice; readonly error: Error };

/** The model of the page. There is one at a time. */
export const model = signal<ModelState>({ status: "none" });

/** Files of a dropped folder, for as long as the page is there. */
let dropped: { readonly name: string; readonly files: FileMap } | undefined;
let loading: AbortController | undefined;
let serial = 0;

/** Loads a model in place of the one that there is. How that went is what `model` says; it throws nothing. */
export async function loadModel(choice: ModelChoice, files?: FileMap): Promise<void> {
  if (files) dropped = { name: choice.ref, files };
  unloadModel();
  store.setModel(choice);
  const state = session.peek();
  if (state.status !== "open") return; // it is loaded when there is a session
  const stop = new AbortController();
  loading = stop;
  const show = (next: ModelState) => {
    if (loading === stop) model.value = next;
  };
  show({ status: "fetching", choice, done: 0, total: undefined });
  try {
    const params = await sourceOf(choice, stop.signal, show);
    show({ status: "loading", choice, done: 0, total: undefined });
    const quantise = choice.quantise as ParamsOf<"load">["quantise"];
    const summary = await state.client.load(
      { ...params, ...(quantise && { quantise }) },
      {
        signal: stop.signal,
        onProgress: ({ phase, done, total, file }) => {
          if (phase === "load") show({ status: "loading", choice, done, total });
          else if (phase === "download")
            show({ status: "fetching", choice, done, total, ...(file && { file }) });
        },
      },
    );
    if (loading !== stop) void state.client.unload({ model: summary.model }).catch(() => {});
    serial += 1;
    show({ status: "ready", choice, summary, serial });
    void lookAtAdapter().catch(noteError);
  } catch (error) {
    noteError(error);
    show(stop.signal.aborted ? { status: "none" } : { status: "failed", choice, error: error as Error });
  }
}

/** Gives up what is being loaded. What has been fetched stays in the browser. */
export function cancelLoading(): void {
  loading?.abort(new DOMException("the reader has given it up", "AbortError"));
  loading = undefined;
  model.value = { status: "none" };
  store.setModel(undefined);
}

function unloadModel(): void {
  const { value } = model;
  loading?.abort(new DOMException("another model was chosen", "AbortError"));
  loading = undefined;
  model.value = { status: "none" };
  if (value.status === "ready")
    void clientOf()
      ?.unload({ model: value.summary.model })
      .catch(() => {});
}

function clientOf(): SessionClient | undefined {
  const state = session.peek();
  return state.status === "open" ? state.client : undefined;
}

/** What the session is asked to load: files that this browser keeps or was given, else a reference. */
async function sourceOf(
  choice: ModelChoice,
  signal: AbortSignal,
  show: (state: ModelState) => void,
): Promise<{ ref: string } | { files: FileMap; name: string }> {
  const { kind, ref } = choice;
  const state = session.peek();
  const isTab = state.status === "open" && state.target.kind === "tab";
  const kept = async (id: string, manifest: Manifest) => {
    const found = await modelStore.fetch(id, manifest, {
      signal,
      onProgress: ({ file, bytes, total }) => show({ status: "fetching", choice, done: bytes, total, file }),
    });
    if ("files" in found) return { files: Object.fromEntries(found.files), name: manifest.title };
    toast(`${manifest.title} is not kept for the next visit: ${found.why}. It is read from the network.`);
    return undefined;
  };
  if (kind === "files") {
    if (dropped?.name === ref) return dropped;
    throw new Error(
      `${ref} was a folder of files that this page cannot open again by itself: drop it once more`,
    );
  }
  if (kind === "offered" && isTab) {
    const manifest = offered.models.find(({ id }) => id === ref);
    if (!manifest) throw new Error(`this site offers no model ${ref}`);
    const folder = new URL(manifest.files[0]!.url, document.baseURI).href.replace(/\/[^/]*$/, "");
    return (await kept(ref, manifest)) ?? { ref: folder };
  }
  if (kind === "hub" && isTab && isHubId(ref)) {
    const id = hubKey(ref);
    // What is here whole is used as it is: the hub is not asked whether there is a newer one.
    const { models } = await modelStore.list();
    const here = models.find((each) => each.id === id && each.whole)?.manifest;
    return (await kept(id, here ?? (await hubManifest(ref, signal)))) ?? { ref };
  }
  return { ref };
}

/** Loads the document's model whenever there is a new session, and forgets the old one with the old session. */
export function followSession(): void {
  let last: SessionClient | undefined;
  effect(() => {
    const client = session.value.status === "open" ? session.value.client : undefined;
    if (client === last) return;
    last = client;
    unloadModel();
    const choice = store.model.peek();
    if (client && choice) void loadModel(choice);
  });
}
