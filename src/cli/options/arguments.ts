import { InvalidArgumentError, Option } from "commander";
import { PromptError } from "../../errors.ts";
import {
  ALL_LAYER_SITES,
  type LayerSite,
  layoutOf,
  parseSite,
  VECTOR_SITES,
  type VectorSite,
} from "../../model/walk/sites.ts";
import { nearestHint } from "../../nearest.ts";
import type { Positions } from "../../patching/positions.ts";
import { checkTemplate } from "../../tasks/few-shot.ts";

/** Parses of single values on the command line. They throw commander's InvalidArgumentError: a usage error. */

export function wholeNumber(from: number, to = Number.MAX_SAFE_INTEGER): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (/^-?\d+$/.test(text) && Number.isSafeInteger(value) && value >= from && value <= to) return value;
    const least = from > Number.MIN_SAFE_INTEGER ? ` from ${from}` : "";
    throw new InvalidArgumentError(
      `Expected a whole number${least}${to < Number.MAX_SAFE_INTEGER ? ` to ${to}` : ""}.`,
    );
  };
}

/** A token position; negative ones count from the end. */
export const position = wholeNumber(Number.MIN_SAFE_INTEGER);

export function number(text: string): number {
  const value = Number(text);
  if (text.trim() !== "" && Number.isFinite(value)) return value;
  throw new InvalidArgumentError("Expected a number.");
}

/** A number above 0, and at most `to`. */
export function positiveNumber(to = Number.POSITIVE_INFINITY): (text: string) => number {
  return (text) => {
    const value = number(text);
    if (value > 0 && value <= to) return value;
    const most = to < Number.POSITIVE_INFINITY ? ` and at most ${to}` : "";
    throw new InvalidArgumentError(`Expected a number above 0${most}.`);
  };
}

/** `0-5,8` → [0, 1, 2, 3, 4, 5, 8] */
export function layers(text: string): number[] {
  const found = new Set<number>();
  for (const part of text.split(",")) {
    const [, from, to = from] = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(part.trim()) ?? [];
    if (from === undefined || Number(from) > Number(to)) {
      throw new InvalidArgumentError("Expected layers such as 12, 3,5 or 0-11.");
    }
    for (let layer = Number(from); layer <= Number(to); layer++) found.add(layer);
  }
  return [...found].sort((a, b) => a - b);
}

/** `all`, `-1`, `0,3,5`, or `2..5` (5 is not included) */
export function positions(text: string): Positions {
  if (text === "all") return "all";
  const [, start, end] = /^(\d+)\.\.(\d+)$/.exec(text) ?? [];
  if (start !== undefined) return { start: Number(start), end: Number(end) };
  if (!/^-?\d+(,-?\d+)*$/.test(text)) {
    throw new InvalidArgumentError("Expected positions such as -1, 0,3,5, 2..5 or all.");
  }
  const list = text.split(",").map(Number);
  return list.length === 1 ? list[0]! : list;
}

/** One of some names. */
export function oneOf<T extends string>(names: readonly T[]): (text: string) => T {
  return (text) => {
    const found = names.find((name) => name === text);
    if (found !== undefined) return found;
    throw new InvalidArgumentError(`Expected one of ${names.join(", ")}${nearestHint(text, names)}.`);
  };
}

/** An option that takes one of some names, which its help lists. */
export function choice(flags: string, description: string, names: readonly string[]): Option {
  return new Option(flags, description).choices(names).argParser(oneOf(names));
}

/** One of the sites of a layer that `fits`. */
export function layerSite(fits: (site: LayerSite) => boolean): (text: string) => LayerSite {
  return oneOf(ALL_LAYER_SITES.filter(fits));
}

/** One of the sites that vectors are made of: those that have a row a token. */
export function vectorSite(): (text: string) => VectorSite {
  return oneOf(VECTOR_SITES.filter((site) => layoutOf(parseSite(`${site}.0`).site) === "rows"));
}

/** Text with `\n`, `\t` and `\\` for what is hard to type in a shell. */
export function escapedText(text: string): string {
  return text.replace(/\\([nt\\])/g, (_, letter) => ({ n: "\n", t: "\t", "\\": "\\" })[letter as "n"]);
}

/** A template of examples, with the escapes of {@link escapedText}. */
export function templateText(text: string): string {
  const template = escapedText(text);
  try {
    checkTemplate(template);
  } catch (error) {
    if (!(error instanceof PromptError)) throw error;
    throw new InvalidArgumentError(error.message);
  }
  return template;
}

/** For options that may be given several times. */
export function listed(text: string, previous: readonly string[] = []): string[] {
  return [...previous, text];
}
