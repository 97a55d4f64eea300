import { chartFigure, type Figure as Drawn } from "xpatch";
import type { Figure } from "./figure.ts";

const drawn = new WeakMap<Figure, Drawn>();

/** A figure, drawn once for its file and for each state of the page. */
export function drawnFigure(figure: Figure): Drawn {
  let known = drawn.get(figure);
  if (!known) {
    known = chartFigure(figure);
    drawn.set(figure, known);
  }
  return known;
}
