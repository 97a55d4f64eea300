import { effect } from "@preact/signals";
import type { ExplorerDocument } from "./document/document.ts";
import { keepDocument, keptDocument } from "./document/keep.ts";
import { decodeLink, encodeLink } from "./document/link.ts";
import type { DocumentStore } from "./document/store.ts";

/** What the part of the address behind `#` says: `/lens`, `/lens?d=1.…`, `/?load=xpatch:vlm`. */
export interface Place {
  readonly view: string;
  readonly link?: string;
  /** An offered model to begin with. */
  readonly load?: string;
}

export function placeOf(hash: string): Place {
  const [, view = "", query = ""] = /^#?\/?([\w-]*)(?:\?(.*))?$/.exec(hash) ?? [];
  const params = new URLSearchParams(query);
  const [link, load] = [params.get("d"), params.get("load")];
  return { view, ...(link !== null && { link }), ...(load && { load }) };
}

/** The address of a view of this page. */
export function addressOf(view: string): string {
  return `#/${view}`;
}

/** The address that opens the document as it is, wherever it is opened. */
export async function linkTo(document: ExplorerDocument): Promise<string> {
  const address = new URL(location.href);
  address.search = "";
  address.hash = `/${document.view}?d=${await encodeLink(document)}`;
  return address.href;
}

export interface NavigationOptions {
  /** Which views there are; the first is shown where the address names none. */
  readonly views: readonly string[];
  readonly onError: (error: unknown) => void;
}

/**
 * Opens what the address says, else what this tab had before it was reloaded, and keeps address and document together from then
 * on: going back and forth in the browser goes through views, undo and redo through changes.
 */
export async function startNavigation(
  store: DocumentStore,
  { views, onError }: NavigationOptions,
): Promise<void> {
  const open = async ({ view, link, load }: Place, first: boolean) => {
    let document = first ? keptDocument() : undefined;
    let label = "as it was left";
    if (link !== undefined) {
      try {
        document = await decodeLink(link);
        label = "opened from a link";
      } catch (error) {
        onError(error);
      }
    }
    if (document) store.open(document, label);
    if (load !== undefined && !store.model.peek()) store.setModel({ kind: "offered", ref: load });
    const wanted = link === undefined && view !== "" ? view : store.view.peek();
    store.visit(views.includes(wanted) ? wanted : views[0]!);
    // The address is short again; what the link said is in the document now.
    if (link !== undefined || load !== undefined || view !== store.view.peek())
      history.replaceState(null, "", addressOf(store.view.peek()));
  };
  await open(placeOf(location.hash), true);
  addEventListener("hashchange", () => void open(placeOf(location.hash), false));
  effect(() => {
    const view = store.view.value;
    if (placeOf(location.hash).view !== view) location.hash = addressOf(view);
  });
  keepDocument(store);
}
