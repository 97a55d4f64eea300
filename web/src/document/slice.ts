import type { Json } from "./read.ts";

/**
 * A part of the document: what one view, or several together, keep in it. `read` takes anything apart that a link may say
 * and throws DocumentError; what it gives is what the rest of the page sees, so it has to be complete.
 */
export interface Slice<T extends Json = Json> {
  readonly name: string;
  readonly initial: T;
  /** Where the reader is, not what was made: no step of the history. */
  readonly apart?: boolean;
  read(value: unknown, at: string): T;
}

const known = new Map<string, Slice>();

/** Declares a slice; a module does it once, at its top. */
export function defineSlice<T extends Json>(slice: Slice<T>): Slice<T> {
  if (known.has(slice.name)) throw new Error(`there are two slices ${slice.name} of the document`);
  known.set(slice.name, slice as unknown as Slice);
  return slice;
}

export function sliceNamed(name: string): Slice | undefined {
  return known.get(name);
}
