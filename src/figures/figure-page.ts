import type { Figure } from "./drawing.ts";
import { escapeXml, toSvg } from "./svg.ts";

/** A figure as an HTML page that needs no other file and no network. */
export function toPage(title: string, figure: Figure): string {
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>${escapeXml(title)}</title>
<style>body { margin: 1em; } text { pointer-events: none; } rect:has(title):hover { stroke: #000; stroke-width: 1px; }</style>
${toSvg(figure)}</html>
`;
}
