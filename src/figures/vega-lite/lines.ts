import type { LinesChart } from "../chart.ts";
import { INK } from "./frame.ts";
import { nominal, palette, type Spec, shapes } from "./groupings.ts";
import { CHOSEN, PANEL_HEIGHT, PANEL_WIDTH, ROWS, rangeOf, referenceLine, type View } from "./values.ts";

/** A line and a shape for each series, bands, dashed references, rings around what was chosen. */
export function linesView(chart: LinesChart): View {
  const { x, y, rows, references = [] } = chart;
  const whole = rows.every((row) => Number.isInteger(row.x));
  const axis = whole ? { tickMinStep: 1, format: "d" } : {};
  const across = { field: "x", type: "quantitative", title: x, scale: { zero: false, nice: false }, axis };
  const up = { field: "y", type: "quantitative", title: y, scale: { domain: rangeOf(chart) } };
  const series = rows.map((row) => row.series);
  const [colour, shape] = [
    { ...nominal("series", null, series), ...palette(series) },
    shapes("series", null, series),
  ];
  const clipped = { clip: true };
  const band = {
    transform: ROWS,
    mark: { type: "area", opacity: 0.15, ...clipped },
    encoding: { x: across, y: { ...up, field: "low" }, y2: { field: "high" }, color: colour },
  };
  const line = {
    transform: ROWS,
    mark: { type: "line", strokeWidth: 1.5, ...clipped },
    encoding: { x: across, y: up, color: colour },
  };
  const point = {
    transform: ROWS,
    mark: { type: "point", filled: true, size: 26, opacity: 1 },
    encoding: { x: across, y: up, color: colour, shape },
  };
  const ring = {
    transform: CHOSEN,
    mark: { type: "point", filled: false, shape: "circle", size: 170, strokeWidth: 1.8, stroke: INK },
    encoding: { x: across, y: up },
  };
  const layer: Spec[] = [line, point];
  if (rows.some(({ low }) => low !== undefined)) layer.unshift(band);
  if (rows.some(({ chosen }) => chosen)) layer.push(ring);
  if (references.length > 0) layer.push(referenceLine(references, up));
  return { width: PANEL_WIDTH, height: PANEL_HEIGHT, layer };
}
