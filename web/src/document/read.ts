/** A link or a kept document that says something that it cannot; the message names the place. */
export class DocumentError extends Error {
  override name = "DocumentError";
}

export type Json =
  | null
  | boolean
  | number
  | string
  | readonly Json[]
  | { readonly [key: string]: Json | undefined };

/*
 * Readers check what came from outside, field by field: a document is the page's state, and a link is written by anybody.
 * `at` is where the value is, for messages.
 */

export function readString(value: unknown, at: string, most = 100_000): string {
  if (typeof value === "string" && value.length <= most) return value;
  throw wrong(at, `a text of at most ${most} characters`, value);
}

export function readNumber(value: unknown, at: string, [least, most] = [-1e9, 1e9]): number {
  if (typeof value === "number" && value >= least && value <= most) return value;
  throw wrong(at, `a number from ${least} to ${most}`, value);
}

export function readCount(value: unknown, at: string, most = 1e6): number {
  if (Number.isInteger(value) && (value as number) >= 0 && (value as number) <= most) return value as number;
  throw wrong(at, `a whole number from 0 to ${most}`, value);
}

export function readBoolean(value: unknown, at: string): boolean {
  if (typeof value === "boolean") return value;
  throw wrong(at, "true or false", value);
}

export function readOneOf<T extends string>(value: unknown, at: string, choices: readonly T[]): T {
  if (choices.includes(value as T)) return value as T;
  throw wrong(at, `one of ${choices.join(", ")}`, value);
}

export function readList<T>(
  value: unknown,
  at: string,
  item: (value: unknown, at: string) => T,
  most = 10_000,
): T[] {
  if (Array.isArray(value) && value.length <= most) return value.map((each, i) => item(each, `${at}[${i}]`));
  throw wrong(at, `a list of at most ${most}`, value);
}

/** An object with these fields; others are an error, since what is not understood may matter. */
export function readFields(
  value: unknown,
  at: string,
  fields: readonly string[],
): Readonly<Record<string, unknown>> {
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw wrong(at, "an object", value);
  const unknown = Object.keys(value).find((key) => !fields.includes(key));
  if (unknown !== undefined) {
    throw new DocumentError(
      `${at}: there is no field ${JSON.stringify(unknown)}; known are ${fields.join(", ")}`,
    );
  }
  return value as Record<string, unknown>;
}

/** An object by keys that anybody may choose. */
export function readRecord<T>(
  value: unknown,
  at: string,
  item: (value: unknown, at: string) => T,
): Record<string, T> {
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw wrong(at, "an object", value);
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, item(each, `${at}.${key}`)]));
}

/** What may be left out. */
export function readOptional<T>(
  value: unknown,
  at: string,
  read: (value: unknown, at: string) => T,
): T | undefined {
  return value === undefined ? undefined : read(value, at);
}

function wrong(at: string, expected: string, found: unknown): DocumentError {
  const text = JSON.stringify(found) ?? String(found);
  return new DocumentError(
    `${at}: expected ${expected}, found ${text.length > 60 ? `${text.slice(0, 57)}…` : text}`,
  );
}
