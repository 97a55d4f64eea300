import {
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
import { type PromptDoc, readPromptDoc } from "../../prompts/prompt-doc.ts";

export const MODES = ["layers", "heads", "rollout"] as const;
export type Mode = (typeof MODES)[number];
export const METHODS = ["pca", "tsne"] as const;
export const TABS = ["attention", "lens", "plane"] as const;
export type Tab = (typeof TABS)[number];

/** A set of prompts whose vectors are drawn on a plane. */
export type PlaneSet = {
  readonly tasks: readonly string[];
  /** Examples and questions in words, or with pictures. */
  readonly text: boolean;
  readonly image: boolean;
  /** Prompts of each task and kind. */
  readonly items: number;
  /** Examples in a prompt. */
  readonly count: number;
  readonly layer: number;
  readonly method: (typeof METHODS)[number];
  readonly seed: number;
};

export type SeeSlice = {
  readonly prompt: PromptDoc;
  readonly tab: Tab;
  /** The token that attends; negative from the end. */
  readonly at: number;
  readonly mode: Mode;
  /** Of heads, and of the lens; absent: that of the view's choice. */
  readonly layer?: number;
  readonly head?: number;
  readonly plane: PlaneSet;
  /** What has been asked for: it takes a while, so not each change of the form is. */
  readonly shown?: PlaneSet;
};

/** What the view See keeps in the document. */
export const SEE = defineSlice<SeeSlice>({
  name: "see",
  initial: {
    prompt: {
      kind: "task",
      task: "country-capital",
      input: "Canada",
      asked: "image",
      specify: "none",
      count: 5,
      seed: 0,
    },
    tab: "attention",
    at: -1,
    mode: "layers",
    plane: {
      tasks: ["country-capital", "country-currency", "animal-young"],
      text: true,
      image: true,
      items: 4,
      count: 3,
      layer: 21,
      method: "pca",
      seed: 0,
    },
  },
  read(value, at) {
    const fields = readFields(value, at, ["prompt", "tab", "at", "mode", "layer", "head", "plane", "shown"]);
    const number = (each: unknown, place: string) => readCount(each, place, 1000);
    const layer = readOptional(fields["layer"], `${at}.layer`, number);
    const head = readOptional(fields["head"], `${at}.head`, number);
    const shown = readOptional(fields["shown"], `${at}.shown`, readPlane);
    return {
      prompt: readPromptDoc(fields["prompt"], `${at}.prompt`),
      tab: readOneOf(fields["tab"], `${at}.tab`, TABS),
      at: Math.round(readNumber(fields["at"], `${at}.at`, [-1e6, 1e6])),
      mode: readOneOf(fields["mode"], `${at}.mode`, MODES),
      ...(layer !== undefined && { layer }),
      ...(head !== undefined && { head }),
      plane: readPlane(fields["plane"], `${at}.plane`),
      ...(shown && { shown }),
    };
  },
});

function readPlane(value: unknown, at: string): PlaneSet {
  const fields = readFields(value, at, [
    "tasks",
    "text",
    "image",
    "items",
    "count",
    "layer",
    "method",
    "seed",
  ]);
  return {
    tasks: readList(fields["tasks"], `${at}.tasks`, (each, place) => readString(each, place, 100), 12),
    text: readBoolean(fields["text"], `${at}.text`),
    image: readBoolean(fields["image"], `${at}.image`),
    items: readCount(fields["items"], `${at}.items`, 100),
    count: readCount(fields["count"], `${at}.count`, 20),
    layer: readCount(fields["layer"], `${at}.layer`, 1000),
    method: readOneOf(fields["method"], `${at}.method`, METHODS),
    seed: readCount(fields["seed"], `${at}.seed`, 2 ** 31),
  };
}
