import { ImageError } from "../errors.ts";
import { dejavuFonts } from "./node-fonts.ts";

/** What the fonts of the package do not have: Indic and East Asian scripts, pictograms. The machine may have them. */
const BEYOND_DEJAVU =
  /[\u0700-\u07bf\u0800-\u0e7f\u0f00-\u109f\u1100-\u139f\u1700-\u1cff\u2e80-\ua4cf\ua800-\uabff\uac00-\ud7ff\uf900-\ufaff\ufe30-\ufe6f\uff00-\uffef\u{10000}-\u{1d3ff}\u{1f000}-\u{3ffff}]/u;

/** See `Platform.svgToPng`. In fonts of a package, so that every machine draws the same letters. */
export async function svgToPng(svg: string, zoom: number): Promise<Uint8Array<ArrayBuffer>> {
  // Loaded when there is something to draw: most programs draw nothing.
  const { Resvg } = await import("@resvg/resvg-js");
  const font = {
    loadSystemFonts: BEYOND_DEJAVU.test(svg),
    fontFiles: dejavuFonts("DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono"),
    defaultFontFamily: "DejaVu Sans",
  };
  const drawing = new Resvg(svg, { font, fitTo: { mode: "zoom", value: zoom } });
  checkPixels(drawing.width * zoom, drawing.height * zoom);
  return Uint8Array.from(drawing.render().asPng());
}

/** A gigabyte of memory. */
const MOST_PIXELS = 2 ** 28;

function checkPixels(width: number, height: number): void {
  const size = `${Math.round(width)} x ${Math.round(height)}`;
  if (width < 0.5 || height < 0.5) throw new ImageError(`a PNG of ${size} pixels; expected a larger zoom`);
  if (width * height <= MOST_PIXELS) return;
  throw new ImageError(
    `a PNG of ${size} pixels is too large (expected at most ${MOST_PIXELS}); expected a smaller zoom, or another format`,
  );
}
