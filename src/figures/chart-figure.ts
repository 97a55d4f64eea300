import { anObject, checkArgument } from "../arguments.ts";
import type { Chart } from "./chart.ts";
import { captionOf } from "./chart-caption.ts";
import { chartText } from "./chart-text.ts";
import { Figure } from "./figure.ts";
import { chartSpec } from "./vega-lite/chart-spec.ts";

/**
 * Any chart from plain data: lines with bands, groups of bars, heat maps, planes of points, in panels. `heatFigure` and
 * `curveFigure` make them of what the analyses give.
 *
 * @param text what it shows in a terminal; default: its numbers as tables
 */
export function chartFigure(chart: Chart, text?: string): Figure {
  checkArgument("chartFigure", "chart", chart, anObject);
  checkArgument("chartFigure", "chart.rows", chart.rows, {
    words: "a list of rows, at least one",
    holds: (rows) => Array.isArray(rows) && rows.length > 0,
  });
  return new Figure({
    title: chart.title,
    caption: captionOf(chart),
    text: text ?? chartText(chart),
    spec: () => chartSpec(chart),
  });
}
