import type { CellRecord } from "./cell-store.ts";
import type { Setting } from "./setting.ts";

/** Of what cells hold. To be raised whenever a cell of the same key comes to hold something else. */
export const CELL_FORMAT = 2;

/** What is wrong with a cell of a run that began before formats were counted; undefined if it is as it would be today. */
export function outdated({ kind, result }: CellRecord, { options }: Setting): string | undefined {
  if (unnamed(result)) return "scores do not say which answers name the item";
  if (kind !== "lens-phases") return undefined;
  if (options.caseSensitive) return "small letters count as capitals";
  const { own = {} } = result as { own?: object };
  return "delimiter" in own ? undefined : "the delimiter's token is missing";
}

/** Whether there are scores of single tokens in it, without `named`. */
function unnamed(value: unknown): boolean {
  if (typeof value !== "object" || value === null) return false;
  if ("hits" in value && "majority" in value && !("named" in value)) return true;
  return Object.values(value).some(unnamed);
}
