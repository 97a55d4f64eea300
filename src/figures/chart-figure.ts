import { ArgumentError } from "../errors.ts";
import type { Chart, HeatChart } from "./chart.ts";
import { captionOf } from "./chart-caption.ts";
import { chartText } from "./chart-text.ts";
import { checkChart } from "./check-chart.ts";
import { Figure } from "./figure.ts";
import { chartSpec } from "./vega-lite/chart-spec.ts";

/**
 * Any chart from plain data: lines with bands, groups of bars, heat maps, planes of points, in panels. `heatFigure` and
 * `curveFigure` make them of what the analyses give. Throws ArgumentError.
 *
 * @param text what it shows in a terminal; default: its numbers as tables
 * @throws ArgumentError where something is missing, or is of the wrong kind
 */
export function chartFigure(chart: Chart, text?: string): Figure {
  checkChart("chartFigure", chart);
  if (chart.kind === "heat") checkSquares(chart);
  return new Figure({
    title: chart.title,
    caption: captionOf(chart),
    text: text ?? chartText(chart),
    spec: () => chartSpec(chart),
  });
}

/** Throws ArgumentError where a square would hide one of another value. */
function checkSquares({ rows }: HeatChart): void {
  const seen = new Map<string, number>();
  for (const { panel, x, y, value } of rows) {
    const square = JSON.stringify([panel, `${x}`, `${y}`]);
    if (!Object.is(seen.get(square) ?? value, value)) {
      const where = `x ${JSON.stringify(x)}, y ${JSON.stringify(y)}${panel === undefined ? "" : ` of panel ${JSON.stringify(panel)}`}`;
      throw new ArgumentError(`chartFigure: expected one value for each square, found two at ${where}`);
    }
    seen.set(square, value);
  }
}
