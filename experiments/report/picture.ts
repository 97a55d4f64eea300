import { dejavuFonts } from "#src/platform/node-fonts";
import { captionOf } from "./caption.ts";
import type { Figure } from "./figure.ts";
import { escaped } from "./html.ts";
import { FONT, toVegaLite } from "./vega-lite.ts";

/** Pixels of a PNG for one of the SVG. */
const ZOOM = 2;

const drawn = new WeakMap<Figure, Promise<string>>();

/** A figure as an SVG document; drawn once, for its file and for each state of the page. */
export function figureSvg(figure: Figure): Promise<string> {
  let svg = drawn.get(figure);
  if (!svg) {
    svg = draw(figure);
    drawn.set(figure, svg);
  }
  return svg;
}

/** Vega, which finds no canvas here, takes letters for wider than those of DejaVu Sans are. */
function textWidth({ fontSize = 11 }: { fontSize?: number }, text: unknown): number {
  return 0.64 * fontSize * `${text ?? ""}`.length;
}

async function draw(figure: Figure): Promise<string> {
  // Loaded when a picture is drawn: they are large, and most commands draw none.
  const { parse, resetSVGDefIds, textMetrics, View } = await import("vega");
  textMetrics.width = textWidth;
  const { compile } = await import("vega-lite");
  const view = new View(parse(compile(toVegaLite(figure)).spec), { renderer: "none" });
  // Vega numbers gradients and clips through the process; a figure is to be the same whatever was drawn before.
  resetSVGDefIds();
  try {
    // Its caption goes where the file goes.
    return (await view.toSVG()).replace(/<svg[^>]*>/, `$&<desc>${escaped(captionOf(figure))}</desc>`);
  } finally {
    view.finalize();
  }
}

/** An SVG document as a PNG file. Letters come from a font package, so that every machine draws the same picture. */
export async function svgToPng(svg: string): Promise<Uint8Array> {
  const { Resvg } = await import("@resvg/resvg-js");
  const font = {
    loadSystemFonts: false,
    fontFiles: dejavuFonts("DejaVuSans", "DejaVuSans-Bold"),
    defaultFontFamily: FONT,
  };
  return new Resvg(svg, { font, fitTo: { mode: "zoom", value: ZOOM } }).render().asPng();
}
