import { platform } from "#platform";
import { aKindOf, checkArgument } from "../arguments.ts";
import { Figure } from "./figure.ts";

/**
 * Shows a figure in whatever way the place has: displayed in a notebook (Deno's kernel), at the end of a page in a browser, in
 * the system's browser where there is a screen. The path of the page for the system's browser is printed, and where there is
 * no screen the figure's text before it.
 */
export async function show(figure: Figure): Promise<void> {
  checkArgument("show", "figure", figure, aKindOf(Figure, "from heatFigure, curveFigure, attentionFigure …"));
  await platform.show({ text: figure.toString(), svg: () => figure.svg(), html: () => figure.html() });
}
