import {
  aBoolean,
  aListOf,
  anArray,
  anObject,
  aString,
  checkArgument,
  type Expected,
  either,
  type Options,
  oneOf,
} from "../../arguments.ts";
import { isRgbImage } from "../../images/files/rgb.ts";
import { isObject } from "../checkpoint/json/config-reader.ts";
import type { ChatOptions } from "./chat-template.ts";

/** A token's; whether it is one that the model has is a question of prompts. */
export const anId: Expected = {
  words: "a number",
  holds: (value) => typeof value === "number" || typeof value === "bigint",
};

/** As `loadImage` or `preprocess` give it. */
export const aPicture: Expected = {
  words: "a picture (await loadImage(…)), with 3 bytes for each pixel or as many floats as its shape says",
  holds: (value) => isRgbImage(value) || isPixelValues(value),
};

function isPixelValues(value: unknown): boolean {
  if (!isObject(value)) return false;
  const { data, shape, tiling } = value;
  const areFloats = /^\[object Float(32|64)Array\]$/.test(Object.prototype.toString.call(data));
  if (!areFloats || !Array.isArray(shape) || shape.length !== 3) return false;
  const { count = 1, sizes } = isObject(tiling) ? tiling : {};
  if (sizes !== undefined && !(Array.isArray(sizes) && sizes.every(isObject) && sizes.length === count)) {
    return false;
  }
  const pixels = ((sizes as { width: number; height: number }[] | undefined) ?? []).reduce(
    (sum, { width, height }) => sum + width * height,
    0,
  );
  const expected = sizes === undefined ? Number(count) * shape[1] * shape[2] : pixels;
  return shape[0] === 3 && (data as Float32Array).length === 3 * expected;
}

const aPart: Expected = {
  words: `a string, { text, name }, { image } or ${aPicture.words}`,
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

/** Text, or pieces of it. */
export const ANSWER: Expected = either(aString, aListOf(aPart));

export const CHAT_OPTIONS: Options<Omit<ChatOptions, "imageRules">> = {
  bos: BOS,
  spans: SPANS,
  answer: ANSWER,
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
