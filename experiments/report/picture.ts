import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import type { Figure } from "./figure.ts";
import { FONT, toVegaLite } from "./vega-lite.ts";

const FONTS = join(dirname(createRequire(import.meta.url).resolve("dejavu-fonts-ttf/package.json")), "ttf");

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

async function draw(figure: Figure): Promise<string> {
  // Loaded when a picture is drawn: they are large, and most commands draw none.
  const { parse, resetSVGDefIds, View } = await import("vega");
  const { compile } = await import("vega-lite");
  const view = new View(parse(compile(toVegaLite(figure)).spec), { renderer: "none" });
  // Vega numbers gradients and clips through the process; a figure is to be the same whatever was drawn before.
  resetSVGDefIds();
  try {
    return await view.toSVG();
  } finally {
    view.finalize();
  }
}

/** An SVG document as a PNG file. Letters come from a font package, so that every machine draws the same picture. */
export async function svgToPng(svg: string): Promise<Uint8Array> {
  const { Resvg } = await import("@resvg/resvg-js");
  const font = {
    loadSystemFonts: false,
    fontFiles: ["DejaVuSans.ttf", "DejaVuSans-Bold.ttf"].map((file) => join(FONTS, file)),
    defaultFontFamily: FONT,
  };
  return new Resvg(svg, { font, fitTo: { mode: "zoom", value: ZOOM } }).render().asPng();
}
