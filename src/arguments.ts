import { ArgumentError } from "./errors.ts";
import { nearest, nearestHint } from "./nearest.ts";

/*
 * What plain JavaScript gets wrong and TypeScript would have found: arguments that are missing or of the wrong kind, and
 * options that do not exist. Public functions check theirs with these, first thing.
 */

/** What an argument has to be: in words, for messages, and as a test. */
export interface Expected {
  readonly words: string;
  readonly holds: (value: unknown) => boolean;
  /** Of lists: what each item has to be. */
  readonly item?: Expected;
  /** Where it has to be one of some names: those. */
  readonly names?: readonly string[];
}

export const aString: Expected = { words: "a string", holds: (value) => typeof value === "string" };
export const aBoolean: Expected = {
  words: "true or false",
  holds: (value) => typeof value === "boolean",
};
export const aFunction: Expected = { words: "a function", holds: (value) => typeof value === "function" };
export const aNumber: Expected = {
  words: "a number",
  holds: (value) => typeof value === "number" && !Number.isNaN(value),
};

/** How many of a list: all, if there are fewer. */
export const aCount: Expected = {
  words: "a whole number from 0",
  holds: (value) => value === Number.POSITIVE_INFINITY || (Number.isInteger(value) && (value as number) >= 0),
};
export const aWholeFromOne: Expected = {
  words: "a whole number from 1",
  holds: (value) => Number.isInteger(value) && (value as number) >= 1,
};
/** Of data that is drawn, where what is not finite is left out. */
export const anyNumber: Expected = { words: "a number", holds: (value) => typeof value === "number" };

export const anObject: Expected = {
  words: "an object",
  holds: (value) => typeof value === "object" && value !== null,
};
export const anArray: Expected = { words: "a list", holds: Array.isArray };

export function oneOf(...values: readonly string[]): Expected {
  const quoted = values.map((value) => `"${value}"`);
  return {
    words: [quoted.slice(0, -1).join(", "), quoted.at(-1)].filter(Boolean).join(" or "),
    holds: (value) => values.includes(value as string),
    names: values,
  };
}

/** An object of a class; `from` says how one comes by it. */
// biome-ignore lint/suspicious/noExplicitAny: the arguments of the constructor do not matter
export function aKindOf(type: abstract new (...args: any[]) => unknown, from: string): Expected {
  const name = type.name;
  return { words: `${article(name)} (${from})`, holds: (value) => value instanceof type };
}

export function either(...kinds: readonly Expected[]): Expected {
  return {
    words: kinds.map(({ words }) => words).join(" or "),
    holds: (value) => kinds.some((kind) => kind.holds(value)),
    names: kinds.flatMap(({ names = [] }) => names),
  };
}

/** An array, or a typed one. */
export function aListOf(item: Expected): Expected {
  return {
    words: `a list, each item ${item.words}`,
    // The elements of a typed array are all of one kind.
    holds: (value) =>
      isList(value) && (Array.isArray(value) ? value.every(item.holds) : item.holds(value[0] ?? 0)),
    item,
  };
}

/** Throws ArgumentError unless a value is as expected: `tap: expected site to be a string, found undefined`. */
export function checkArgument(call: string, name: string, value: unknown, expected: Expected): void {
  if (expected.holds(value)) return;
  const { item, names = [] } = expected;
  const wrong = item && isList(value) ? Array.from(value).findIndex((each) => !item.holds(each)) : -1;
  if (wrong >= 0) checkArgument(call, `${name}[${wrong}]`, (value as unknown[])[wrong], item!);
  const hint = typeof value === "string" && names.length > 1 ? nearestHint(value, names) : "";
  throw new ArgumentError(
    `${call}: expected ${name} to be ${expected.words}, found ${showFound(value)}${hint}`,
  );
}

/** The options of a call, by name. */
export type Options<T> = { readonly [K in keyof Required<T>]: Expected };

/**
 * Checks an object of options: that it is one, that there are no others than the known ones, and that those given are as
 * expected. Throws ArgumentError, with the nearest name for one that is not known.
 *
 * @param name what the argument itself is called
 * @param required names of options that have to be there
 */
export function checkOptions<T>(
  call: string,
  options: unknown,
  known: Options<T>,
  { name = "options", required = [] }: { name?: string; required?: readonly (keyof T & string)[] } = {},
): void {
  const example = required.length > 0 ? ` with ${required.join(" and ")}` : "";
  const plain: Expected = { words: `an object${example}`, holds: isPlain };
  if (options === undefined && required.length === 0) return;
  checkArgument(call, name, options, plain);
  const given = options as Record<string, unknown>;
  const names = Object.keys(known);
  for (const key of Object.keys(given)) {
    if (names.includes(key)) continue;
    throw new ArgumentError(
      `${call}: ${name} has no "${key}"; the nearest is "${nearest(key, names)}" (there are ${names.join(", ")})`,
    );
  }
  for (const key of names as (keyof T & string)[]) {
    if (given[key] === undefined && !required.includes(key)) continue;
    checkArgument(call, key, given[key], known[key]);
  }
}

/** How messages call a value that is not what was expected. */
export function showFound(value: unknown): string {
  if (value === null || value === undefined || typeof value === "boolean") return String(value);
  if (typeof value === "string") {
    return `the string ${JSON.stringify(value.length > 60 ? `${value.slice(0, 60)}…` : value)}`;
  }
  if (typeof value === "number" || typeof value === "bigint") return `the number ${value}`;
  if (typeof value !== "object") return `a ${typeof value}`;
  if (typeof (value as PromiseLike<unknown>).then === "function") return "a Promise (await it first)";
  if (value instanceof URL) return `the URL object ${value.href}`;
  if (Array.isArray(value)) return value.length === 0 ? "an empty list" : `a list of ${value.length}`;
  if (!isPlain(value)) return article((value as object).constructor?.name ?? "object");
  const kind = (value as { kind?: unknown }).kind;
  if (kind === "tap" || kind === "edit")
    return `${article(kind)} ${"site" in value ? `at ${value.site}` : ""}`.trim();
  const keys = Object.keys(value);
  return keys.length === 0 ? "an empty object" : `an object with ${keys.slice(0, 8).join(", ")}`;
}

function article(noun: string): string {
  return `${/^[aeio]/i.test(noun) ? "an" : "a"} ${noun}`;
}

function isPlain(value: unknown): value is object {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return false;
  const prototype = Object.getPrototypeOf(value);
  return prototype === null || Object.getPrototypeOf(prototype) === null;
}

/** Of one dimension: an array or a typed array. */
export function isList(value: unknown): value is ArrayLike<unknown> {
  return Array.isArray(value) || (ArrayBuffer.isView(value) && !(value instanceof DataView));
}
