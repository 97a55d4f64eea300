import type { ExplorerDocument } from "../document/document.ts";

/** A place where two documents differ: `vectors.context.specify`, and what stands there in each. */
export interface Difference {
  readonly at: string;
  readonly was: string | undefined;
  readonly is: string | undefined;
}

/** Where two documents differ, but for the view that is shown. */
export function differences(was: ExplorerDocument, is: ExplorerDocument): Difference[] {
  return [
    ...compare("model", was.model, is.model),
    ...keysOf(was.slices, is.slices).flatMap((name) => compare(name, was.slices[name], is.slices[name])),
  ];
}

function compare(at: string, was: unknown, is: unknown): Difference[] {
  if (JSON.stringify(was) === JSON.stringify(is)) return [];
  if (isRecord(was) && isRecord(is)) {
    return keysOf(was, is).flatMap((key) => compare(`${at}.${key}`, was[key], is[key]));
  }
  if (Array.isArray(was) && Array.isArray(is)) return compareLists(at, was, is);
  return [{ at, was: inWords(was), is: inWords(is) }];
}

/** Things with an id, and those with a key of their own, are the same thing wherever they stand; others go by their place. */
function compareLists(at: string, was: readonly unknown[], is: readonly unknown[]): Difference[] {
  const ids = [...was, ...is].every((each) => isRecord(each) && "id" in each);
  if (ids) {
    const byId = (list: readonly unknown[]) =>
      Object.fromEntries(list.map((each) => [String((each as { id: unknown }).id), each]));
    const [before, after] = [byId(was), byId(is)];
    return keysOf(before, after).flatMap((id) => compare(`${at}.${id}`, before[id], after[id]));
  }
  const texts = (list: readonly unknown[]) => list.map((each) => JSON.stringify(each));
  const [before, after] = [texts(was), texts(is)];
  const gone = was.filter((_, i) => !after.includes(before[i]!));
  const come = is.filter((_, i) => !before.includes(after[i]!));
  if (gone.length === 0 && come.length === 0) return [{ at, was: "another order", is: "this order" }];
  return Array.from({ length: Math.max(gone.length, come.length) }, (_, i) => ({
    at,
    was: i < gone.length ? inWords(gone[i]) : undefined,
    is: i < come.length ? inWords(come[i]) : undefined,
  }));
}

function keysOf(a: object, b: object): string[] {
  return [...new Set([...Object.keys(a), ...Object.keys(b)])];
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

const MOST = 160;

function inWords(value: unknown): string | undefined {
  if (value === undefined) return undefined;
  const text =
    typeof value === "string"
      ? value
      : isRecord(value)
        ? Object.entries(value)
            .map(([key, each]) => `${key}: ${typeof each === "object" ? JSON.stringify(each) : each}`)
            .join(", ")
        : JSON.stringify(value);
  return text.length > MOST ? `${text.slice(0, MOST - 1)}…` : text;
}
