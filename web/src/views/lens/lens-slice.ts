import {
  DocumentError,
  readBoolean,
  readCount,
  readFields,
  readList,
  readNumber,
  readOneOf,
  readOptional,
  readString,
} from "../../document/read.ts";
import { defineSlice } from "../../document/slice.ts";
import { type PromptDoc, readPromptDoc, written } from "../../prompts/prompt-doc.ts";
import { type Place, readPlace } from "./places.ts";

export const OPERATIONS = ["set", "add", "interpolate", "zero", "projectOut"] as const;
export type Operation = (typeof OPERATIONS)[number];

/** In words, for readers; the library's name is beside it. */
export const OPERATION_WORDS: Readonly<Record<Operation, string>> = {
  set: "set",
  add: "add, scaled",
  interpolate: "interpolate",
  zero: "ablate (zero)",
  projectOut: "project out",
};

export const HAS_AMOUNT: ReadonlySet<Operation> = new Set(["add", "interpolate"]);
/** Of those that take nothing from the source. */
export const NEEDS_SOURCE = (operation: Operation): boolean => operation !== "zero";

/** What an edit does, wherever. */
export type How = {
  readonly operation: Operation;
  /** The scale of `add`, the share of the source of `interpolate`. */
  readonly amount: number;
  /** Without its layer: `resid_post`. */
  readonly site: string;
  /** One head alone; absent for all of the row. */
  readonly head?: number;
};

/** Something put from the source onto the target. */
export type LensEdit = How & {
  readonly id: number;
  readonly on: boolean;
  /** In the source; absent where nothing is taken from it. */
  readonly from?: Place;
  /** In the target. */
  readonly to: Place;
};

export type LensSlice = {
  readonly source: PromptDoc;
  readonly target: PromptDoc;
  /** Of the next edit. */
  readonly how: How;
  readonly edits: readonly LensEdit[];
  /** The edit that the strip of all layers is about; the last one if there is none of this id. */
  readonly chosen: number;
  /** Whether cells have room for words. */
  readonly words: boolean;
  readonly maxNewTokens: number;
};

const MOST_EDITS = 200;
const MOST_NEW_TOKENS = 128;

export const lensSlice = defineSlice<LensSlice>({
  name: "lens",
  initial: {
    source: written(""),
    target: written(""),
    how: { operation: "set", amount: 1, site: "resid_post" },
    edits: [],
    chosen: 0,
    words: true,
    maxNewTokens: 8,
  },
  read(value, at) {
    const fields = readFields(value, at, [
      "source",
      "target",
      "how",
      "edits",
      "chosen",
      "words",
      "maxNewTokens",
    ]);
    return {
      source: readPromptDoc(fields["source"], `${at}.source`),
      target: readPromptDoc(fields["target"], `${at}.target`),
      how: readHow(fields["how"], `${at}.how`),
      edits: readList(fields["edits"], `${at}.edits`, readEdit, MOST_EDITS),
      chosen: readCount(fields["chosen"], `${at}.chosen`),
      words: readBoolean(fields["words"], `${at}.words`),
      maxNewTokens: Math.max(1, readCount(fields["maxNewTokens"], `${at}.maxNewTokens`, MOST_NEW_TOKENS)),
    };
  },
});

const HOW = ["operation", "amount", "site", "head"];

function readHow(value: unknown, at: string): How {
  return howOf(readFields(value, at, HOW), at);
}

function howOf(fields: Readonly<Record<string, unknown>>, at: string): How {
  const head = readOptional(fields["head"], `${at}.head`, (each, place) => readCount(each, place, 10_000));
  return {
    operation: readOneOf(fields["operation"], `${at}.operation`, OPERATIONS),
    amount: readNumber(fields["amount"], `${at}.amount`, [-1000, 1000]),
    site: readString(fields["site"], `${at}.site`, 60),
    ...(head !== undefined && { head }),
  };
}

function readEdit(value: unknown, at: string): LensEdit {
  const fields = readFields(value, at, [...HOW, "id", "on", "from", "to"]);
  const how = howOf(fields, at);
  const from = readOptional(fields["from"], `${at}.from`, readPlace);
  if (NEEDS_SOURCE(how.operation) !== (from !== undefined)) {
    throw new DocumentError(
      `${at}: ${how.operation} ${from ? "takes nothing from" : "needs a place in"} the source`,
    );
  }
  return {
    ...how,
    id: readCount(fields["id"], `${at}.id`),
    on: readBoolean(fields["on"], `${at}.on`),
    ...(from && { from }),
    to: readPlace(fields["to"], `${at}.to`),
  };
}

/** Adds an edit, which the strip is then about. */
export function withEdit(slice: LensSlice, edit: Omit<LensEdit, "id" | "on">): LensSlice {
  const id = 1 + Math.max(0, ...slice.edits.map((each) => each.id));
  return { ...slice, edits: [...slice.edits, { ...edit, id, on: true }], chosen: id };
}

/** With two prompts to begin with: a question behind examples of a task, and one about something else that says no task. */
export function withExample(slice: LensSlice, takesPictures: boolean): LensSlice {
  const shared = { kind: "task", task: "country-capital", count: 5, seed: 0 } as const;
  return {
    ...slice,
    source: { ...shared, input: "Egypt", asked: "text", specify: "text" },
    target: { ...shared, input: "Japan", asked: takesPictures ? "image" : "text", specify: "none" },
  };
}

export function chosenEdit({ edits, chosen }: LensSlice): LensEdit | undefined {
  return edits.find(({ id }) => id === chosen) ?? edits.at(-1);
}
