import { escapeXml } from "./escape.ts";

/** An SVG document as an HTML page that needs no other file and no network. */
export function toPage(title: string, svg: string, caption: string): string {
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>${escapeXml(title)}</title>
<style>
body { margin: 1em; } p { font: 13px/1.4 "DejaVu Sans", Verdana, sans-serif; color: #444; max-width: 60em; }
text { pointer-events: none; } path:has(title):hover { stroke: #000; stroke-width: 1px; }
</style>
${svg}${caption === "" ? "" : `\n<p>${escapeXml(caption)}</p>`}
</html>
`;
}
