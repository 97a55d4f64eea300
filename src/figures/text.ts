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

/** Letters of a token on an axis. */
const LABEL = 12;

/** "5 Paris": a token with its position, so that no two are alike. Signs that vocabularies have for blanks are blanks. */
export function showToken(position: number, token: string): string {
  const word = [...showWord(token.replaceAll(/[Ġ▁]/g, " ").replaceAll("Ċ", "\n"))];
  return `${position} ${word.length > LABEL ? `${word.slice(0, LABEL - 1).join("")}…` : word.join("")}`;
}

/** Four significant digits. */
export function showNumber(value: number): string {
  return `${Number(value.toPrecision(4))}`;
}
