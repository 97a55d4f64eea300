import type { Chart } from "./chart.ts";
import { captionOf } from "./chart-caption.ts";
import { chartText } from "./chart-text.ts";
import { checkChart } from "./check-chart.ts";
import { Figure } from "./figure.ts";
import { chartSpec } from "./vega-lite/chart-spec.ts";

/**
 * Any chart from plain data: lines with bands, groups of bars, heat maps, planes of points, in panels. `heatFigure` and
 * `curveFigure` make them of what the analyses give.
 *
 * @param text what it shows in a terminal; default: its numbers as tables
 * @throws ArgumentError where something is missing, or is of the wrong kind
 */
export function chartFigure(chart: Chart, text?: string): Figure {
  checkChart("chartFigure", chart);
  return new Figure({
    title: chart.title,
    caption: captionOf(chart),
    text: text ?? chartText(chart),
    spec: () => chartSpec(chart),
  });
}
