import {
  aBoolean,
  aListOf,
  aNumber,
  anArray,
  anObject,
  aString,
  checkArgument,
  type Expected,
  either,
  type Options,
  oneOf,
} from "../tensor/arguments.ts";
import type { ChatOptions } from "./chat-template.ts";
import { isObject } from "./config.ts";

/** As `loadImage` or `preprocess` give it. */
export const aPicture: Expected = {
  words: "a picture (await loadImage(…))",
  holds: (value) =>
    isObject(value) &&
    ArrayBuffer.isView(value["data"]) &&
    (Array.isArray(value["shape"]) || (aNumber.holds(value["width"]) && aNumber.holds(value["height"]))),
};

const aPart: Expected = {
  words: "a string, { text, name }, a picture (await loadImage(…)) or { image }",
  holds: (value) =>
    typeof value === "string" ||
    aPicture.holds(value) ||
    (isObject(value) &&
      (aPicture.holds(value["image"]) ||
        (typeof value["text"] === "string" && typeof value["name"] === "string"))),
};

export const SPANS: Expected = {
  words: "an object of texts by name",
  holds: (value) => isObject(value) && Object.values(value).every((text) => typeof text === "string"),
};

export const BOS: Expected = either(aBoolean, oneOf("auto"));

const aPiece: Expected = {
  words: '{ type: "text", text } or { type: "image", image }',
  holds: (value) =>
    isObject(value) &&
    ((value["type"] === "text" && typeof value["text"] === "string") ||
      (value["type"] === "image" && aPicture.holds(value["image"]))),
};

/** One turn of a conversation. */
export const aMessage: Expected = {
  words: `{ role, content }, the content a string or a list of ${aPiece.words}`,
  holds: (value) =>
    isObject(value) &&
    typeof value["role"] === "string" &&
    (typeof value["content"] === "string" || aListOf(aPiece).holds(value["content"])),
};

export const CHAT_OPTIONS: Options<Omit<ChatOptions, "imageRules">> = {
  bos: BOS,
  spans: SPANS,
  addGenerationPrompt: aBoolean,
  continueFinalMessage: either(aBoolean, aString),
  tools: anArray,
  documents: anArray,
  variables: anObject,
};

/** Throws ArgumentError for parts of a prompt of the wrong kind. */
export function checkParts(parts: unknown): void {
  if (!Array.isArray(parts)) checkArgument("prompt", "parts", parts, either(aString, aListOf(aPart)));
  else checkArgument("prompt", "parts", parts, aListOf(aPart));
}
