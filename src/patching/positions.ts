import { PromptError } from "../errors.ts";
import { type Prompt, resolvePosition, type Span } from "../model/prompt/prompt.ts";

/** One position: absolute, from the end where negative, or found in each prompt by a function. */
export type OnePosition = number | ((prompt: Prompt) => number);

/**
 * Token positions of a prompt: one, a span, a list, the name of one of the prompt's spans, or all. They refer to the
 * expanded sequence, BOS and image tokens included.
 */
export type Positions = OnePosition | Span | readonly number[] | { readonly span: string } | "all";

export function isOnePosition(at: Positions): at is OnePosition {
  return typeof at === "number" || typeof at === "function";
}

/**
 * The absolute positions, in the order given. Positions of up to `newTokens` tokens yet to be generated may be named by
 * their absolute number. Throws PromptError for what lies outside.
 */
export function resolvePositions(at: Positions, prompt: Prompt, newTokens = 0): number[] {
  const length = prompt.length + newTokens;
  const absolute = (position: number) =>
    position < 0 ? prompt.at(position) : resolvePosition(position, length);
  if (typeof at === "function") return [absolute(at(prompt))];
  if (typeof at === "object" && "span" in at) {
    const { start, end } = prompt.span(at.span);
    return range(start, end);
  }
  return at === "all" ? range(0, prompt.length) : plainPositions(at, length, absolute);
}

/**
 * Rows of an image in the vision tower (or of its projected features), `length` in all; 0 is the class token where there
 * is one. Throws PromptError for what lies outside, and for spans and functions of prompts, which mean nothing here.
 */
export function resolveImageRows(at: Positions, length: number): number[] {
  if (at === "all") return range(0, length);
  if (typeof at === "function" || (typeof at === "object" && "span" in at)) {
    throw new PromptError(
      "Expected positions within the image (a number, a list, a range or all), found ones of a prompt.",
    );
  }
  return plainPositions(at, length, (position) => resolvePosition(position, length));
}

function plainPositions(
  at: number | Span | readonly number[],
  length: number,
  absolute: (position: number) => number,
): number[] {
  if (typeof at === "number") return [absolute(at)];
  if ("start" in at) {
    if (!(at.start >= 0 && at.start < at.end && at.end <= length)) {
      throw new PromptError(`Expected a span within ${length} positions, found ${at.start} to ${at.end}.`);
    }
    return range(at.start, at.end);
  }
  const positions = at.map(absolute);
  if (positions.length === 0 || new Set(positions).size !== positions.length) {
    throw new PromptError(`Expected at least one position, each once, found [${at.join(", ")}].`);
  }
  return positions;
}

/** How to call positions in messages. */
export function showPositions(at: Positions): string {
  if (typeof at === "number") return `position ${at}`;
  if (typeof at === "function") return `position ${at.name || "found by a function"}`;
  if (at === "all") return "all positions";
  if ("span" in at) return `span "${at.span}"`;
  return "start" in at ? `positions ${at.start} to ${at.end - 1}` : `positions ${at.join(", ")}`;
}

function range(start: number, end: number): number[] {
  return Array.from({ length: end - start }, (_, i) => start + i);
}
