import type { BarsChart } from "../chart.ts";
import { INK, LETTER } from "./frame.ts";
import { distinct, nominal, palette, type Spec, shapes } from "./groupings.ts";
import { PANEL_HEIGHT, PANEL_WIDTH, REFERENCES, ROWS, rangeOf, referenceLine, type View } from "./values.ts";

/** Groups of bars with error bars and points, dashed references over all or over a group. */
export function barsView(chart: BarsChart): View {
  const { x, y, rows, references = [] } = chart;
  const groups = distinct(rows.map((row) => row.x));
  const series = rows.map((row) => row.series);
  const up = { field: "y", type: "quantitative", title: y, scale: { domain: rangeOf(chart) } };
  const group = { field: "x", type: "nominal", title: x, sort: groups, axis: { labelAngle: 0 } };
  const place = { x: group, xOffset: { field: "series", sort: distinct(series) } };
  const colour = { ...nominal("series", null, series), ...palette(series) };
  const bar = {
    transform: ROWS,
    mark: { type: "bar", opacity: 0.55 },
    encoding: { ...place, y: up, color: colour },
  };
  const error = {
    transform: ROWS,
    mark: { type: "rule", color: INK },
    encoding: { ...place, y: { ...up, field: "low" }, y2: { field: "high" } },
  };
  // A bar of 0 has a point too.
  const point = {
    transform: ROWS,
    mark: { type: "point", filled: true, size: 60, opacity: 1, stroke: "white", strokeWidth: 0.7 },
    encoding: { ...place, y: up, color: colour, shape: shapes("series", null, series) },
  };
  const label = Math.max(...groups.map((name) => name.length)) * LETTER;
  const width = Math.max(PANEL_WIDTH, groups.length * Math.max(distinct(series).length * 18, label + LETTER));
  const layer: Spec[] = [bar, point];
  if (rows.some(({ low }) => low !== undefined)) layer.splice(1, 0, error);
  const everywhere = references.filter((reference) => reference.x === undefined);
  const inGroups = references.filter((reference) => reference.x !== undefined);
  const line = referenceLine(references, up);
  if (everywhere.length > 0)
    layer.push({ ...line, transform: [...REFERENCES, { filter: "datum.x == null" }] });
  if (inGroups.length > 0) {
    const ends = { x: { ...group, bandPosition: 0 }, x2: { field: "x", bandPosition: 1 } };
    layer.push({
      ...line,
      transform: [...REFERENCES, { filter: "datum.x != null" }],
      encoding: { ...line.encoding, ...ends },
    });
  }
  return { width, height: PANEL_HEIGHT, layer };
}
