import { createRequire } from "node:module";
import { dejavuFonts } from "./node-fonts.ts";
import type { TextLine } from "./platform.ts";

/** What the fonts of the package do not have: Indic and East Asian scripts, pictograms. The machine may have them. */
const BEYOND_DEJAVU =
  /[\u0700-\u07bf\u0800-\u0e7f\u0f00-\u109f\u1100-\u139f\u1700-\u1cff\u2e80-\ua4cf\ua800-\uabff\uac00-\ud7ff\uf900-\ufaff\ufe30-\ufe6f\uff00-\uffef\u{10000}-\u{1d3ff}\u{1f000}-\u{3ffff}]/u;

/** What XML cannot hold in any spelling. */
const NOT_XML = /[\p{Cc}\p{Cs}\ufffe\uffff]/gu;

/** See `Platform.drawText`. In DejaVu Sans Mono; characters that it lacks come from the machine's fonts, if it has them. */
export function drawText(
  lines: readonly TextLine[],
  { width, height, fontSize }: { readonly width: number; readonly height: number; readonly fontSize: number },
): Uint8Array {
  // Loaded when there is text to draw: most programs draw none.
  const { Resvg }: typeof import("@resvg/resvg-js") = createRequire(import.meta.url)("@resvg/resvg-js");
  const texts = lines.map(
    ({ x, y, text }) => `<text x="${x}" y="${y}" xml:space="preserve">${references(text)}</text>`,
  );
  const family = "DejaVu Sans Mono";
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" font-family="${family}" font-size="${fontSize}">${texts.join("")}</svg>`;
  const font = {
    loadSystemFonts: lines.some(({ text }) => BEYOND_DEJAVU.test(text)),
    fontFiles: dejavuFonts("DejaVuSansMono", "DejaVuSans"),
    defaultFontFamily: family,
    monospaceFamily: family,
  };
  const { pixels } = new Resvg(svg, { font }).render();
  return Uint8Array.from({ length: width * height }, (_, i) => pixels[4 * i + 3]!);
}

function references(text: string): string {
  return [...text.replace(NOT_XML, "\ufffd")].map((character) => `&#${character.codePointAt(0)};`).join("");
}
