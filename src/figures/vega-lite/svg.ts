import type { TopLevelSpec } from "vega-lite";
import { platform } from "#platform";
import { escapeXml } from "../escape.ts";
import type { Spec } from "./groupings.ts";
import { textWidth } from "./text-width.ts";
import { tidySvg, withOwnNames } from "./tidy-svg.ts";

/** What Vega exports and its types leave out. */
interface Measuring {
  readonly textMetrics: { width: typeof textWidth };
}

/**
 * Draws a specification as an SVG document that needs no other file. Vega is loaded when the first figure is drawn: it is
 * large, and most programs draw none.
 */
export async function drawSvg(spec: Spec, title: string, description: string): Promise<string> {
  const [vega, { compile }] = await Promise.all([import("vega"), import("vega-lite")]);
  const { parse, View } = vega;
  // Browsers have a canvas by which it measures text.
  if (platform.name === "node") (vega as unknown as Measuring).textMetrics.width = textWidth;
  // The compiler cannot follow Vega-Lite's own types through compositions; compiling the specification checks it.
  const view = new View(parse(compile(spec as unknown as TopLevelSpec).spec), { renderer: "none" });
  try {
    const [, attributes, content] = /^<svg([^>]*)>(.*)$/s.exec(tidySvg(await view.toSVG()))!;
    const described = description === "" ? "" : `<desc>${escapeXml(description)}</desc>`;
    // A label and no title element, which browsers would show as a tooltip wherever there is no other.
    return withOwnNames(
      `<svg${attributes} role="img" aria-label="${escapeXml(title || "figure")}">${described}${content}`,
    );
  } finally {
    view.finalize();
  }
}
