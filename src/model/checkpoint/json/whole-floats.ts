import type { JsonObject } from "./config-reader.ts";

/** Strings, which are passed over, and numbers, with those that only Python has. */
const TOKENS = /"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|-?Infinity|NaN/g;
const MARK = "\u0001whole float ";
const MARKED = new RegExp(`"${JSON.stringify(MARK).slice(1, -1).replace("\\", "\\\\")}([^"]*)"`, "g");

/**
 * JSON in which floats without a fraction (`1.0`, `1e4`), Infinity and NaN are strings that {@link withWholeFloats} turns
 * back. Python tells such floats from integers, and transformers refuses a config that has one for the other; JavaScript
 * cannot.
 */
export function parseWholeFloats(text: string): JsonObject {
  const marked = text.replace(TOKENS, (token) => {
    if (token.startsWith('"')) return token;
    const spelt = /[.eE]/.test(token) && Number.isInteger(Number(token));
    return spelt || /[fN]/.test(token) ? JSON.stringify(MARK + token) : token;
  });
  return JSON.parse(marked);
}

/** The text of JSON, whole floats as they were spelt. */
export function withWholeFloats(text: string): string {
  return text.replace(MARKED, "$1");
}
