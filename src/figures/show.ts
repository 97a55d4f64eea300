import { platform } from "#platform";
import { aKindOf, checkArgument } from "../arguments.ts";
import { Figure } from "./figure.ts";

/**
 * Shows a figure in whatever way the place has: displayed in a notebook (Deno's kernel), at the end of a page in a browser, in
 * the system's browser where there is a screen; else its text is printed, with the path of a page that was written.
 */
export async function show(figure: Figure): Promise<void> {
  checkArgument("show", "figure", figure, aKindOf(Figure, "from heatFigure, curveFigure, attentionFigure …"));
  await platform.show({ text: figure.toString(), svg: () => figure.svg(), html: () => figure.html() });
}
