import { DocumentError, type Json, readFields, readOptional, readRecord, readString } from "./read.ts";
import { sliceNamed } from "./slice.ts";

export const DOCUMENT_VERSION = 1;

/** Which model the document speaks of: one that is offered by its id, or one by its address; never its bytes. */
export interface ModelChoice {
  readonly [key: string]: string | undefined;
  /** `offered` by the site or the server, a `url`, a `hub` id, or `files` that lie with the reader alone. */
  readonly kind: "offered" | "url" | "hub" | "files";
  readonly ref: string;
  /** Weights are quantised to this as they are loaded. */
  readonly quantise?: string;
}

/**
 * All that is on the screen but what was computed: plain data, kept over a reload, in the history, in the link. The slices
 * belong to views (`defineSlice`); one that is not there has its initial value.
 */
export interface ExplorerDocument {
  readonly version: typeof DOCUMENT_VERSION;
  readonly view: string;
  readonly model?: ModelChoice;
  readonly slices: Readonly<Record<string, Json>>;
}

export const EMPTY: ExplorerDocument = { version: DOCUMENT_VERSION, view: "", slices: {} };

/** A document from outside. Throws DocumentError for what is none, and for one of a later version. */
export function readDocument(value: unknown): ExplorerDocument {
  const fields = readFields(value, "document", ["version", "view", "model", "slices"]);
  if (fields["version"] !== DOCUMENT_VERSION) {
    throw new DocumentError(
      `document: version ${JSON.stringify(fields["version"])} was made by another version of the explorer, ` +
        `which this one does not read; it reads version ${DOCUMENT_VERSION}`,
    );
  }
  const model = readOptional(fields["model"], "document.model", readModel);
  return {
    version: DOCUMENT_VERSION,
    view: readString(fields["view"], "document.view", 40),
    ...(model && { model }),
    slices: Object.fromEntries(
      Object.entries(readRecord(fields["slices"], "document.slices", (each) => each)).map(([name, each]) => {
        const slice = sliceNamed(name);
        if (!slice) throw new DocumentError(`document.slices: there is no part ${JSON.stringify(name)}`);
        return [name, slice.read(each, name)];
      }),
    ),
  };
}

const KINDS = ["offered", "url", "hub", "files"] as const;

function readModel(value: unknown, at: string): ModelChoice {
  const fields = readFields(value, at, ["kind", "ref", "quantise"]);
  const kind = KINDS.find((each) => each === fields["kind"]);
  if (!kind) throw new DocumentError(`${at}.kind: expected one of ${KINDS.join(", ")}`);
  const quantise = readOptional(fields["quantise"], `${at}.quantise`, (each, place) =>
    readString(each, place, 20),
  );
  return { kind, ref: readString(fields["ref"], `${at}.ref`, 2000), ...(quantise && { quantise }) };
}
