import type { PatchGrid } from "../model/prompt/prompt.ts";

/** 0.0123 → "1.23 %" */
export function showShare(fraction: number): string {
  return `${(100 * fraction).toFixed(fraction < 0.1 ? 2 : 1)} %`;
}

/** "row 0, column 3": both count from 0, from the top left. */
export function showPatch(index: number, { columns }: PatchGrid): string {
  return `row ${Math.floor(index / columns)}, column ${index % columns}`;
}

/** A token's text without the quotes and blanks around it, as long as something is left. */
export function showWord(text: string): string {
  const escaped = JSON.stringify(text).slice(1, -1);
  return escaped.trim() || `"${escaped}"`;
}
