import { effect } from "@preact/signals";
import { type ExplorerDocument, readDocument } from "./document.ts";
import type { DocumentStore } from "./store.ts";

/** Of this tab alone, so that two tabs do not overwrite each other. */
const KEY = "xpatch-explorer-document";
const PAUSE = 250;

/** The document that this tab had before it was reloaded; undefined where there is none that can be read. */
export function keptDocument(): ExplorerDocument | undefined {
  try {
    const text = sessionStorage.getItem(KEY);
    return text === null ? undefined : readDocument(JSON.parse(text));
  } catch {
    return undefined; // of another version, or storage is not allowed here
  }
}

/** Keeps the document over a reload from now on. */
export function keepDocument(store: DocumentStore): void {
  let waiting: ReturnType<typeof setTimeout> | undefined;
  const write = () => {
    clearTimeout(waiting);
    waiting = undefined;
    try {
      sessionStorage.setItem(KEY, JSON.stringify(store.document.peek()));
    } catch {
      // Full, or not allowed: the page works without.
    }
  };
  effect(() => {
    void store.document.value;
    waiting ??= setTimeout(write, PAUSE);
  });
  addEventListener("pagehide", write);
}
