import type { TopLevelSpec } from "vega-lite";
import { counts, panelTitle } from "./caption.ts";
import type { BarsFigure, Figure, HeatFigure, LinesFigure, Reference, ScatterFigure } from "./figure.ts";
import { distinct, nominal, palette, type Spec, shapes } from "./groupings.ts";
import { heatScale } from "./heat-scale.ts";

/** Carried by the package dejavu-fonts-ttf; browsers without it take the next one. */
export const FONT = "DejaVu Sans";

/** Of references, which have no shapes. */
const DASHES = [
  [6, 3],
  [2, 2],
  [9, 2, 2, 2],
  [1, 4],
];
/** How much of a point is filled, for each of the kinds that filling stands for. */
const FILLINGS = [0.9, 0, 0.35];
const INK = "#222222";

const PANEL_WIDTH = 300;
const PANEL_HEIGHT = 220;
/** Between panels: axis titles and numbers lie there. */
const PANEL_GAP = { row: 70, column: 40 };
const SCATTER_SIDE = 300;
/** Pixels of a square of a heat map, if they fit. */
const SQUARE = 22;

/** Pixels that panels may take side by side. */
const PAGE_WIDTH = 1000;
/** Pixels of a letter of a label, about. */
const LETTER = 7;

/** A panel. */
interface View extends Spec {
  readonly width: number;
}

/** What is drawn of the rows in a layer. */
const ROWS = [{ filter: "datum.mark === 'row'" }];
const CHOSEN = [{ filter: "datum.mark === 'row' && datum.chosen === true" }];
const REFERENCES = [{ filter: "datum.mark === 'reference'" }];

/** A figure as a specification of Vega-Lite. */
export function toVegaLite(figure: Figure): TopLevelSpec {
  const panels = distinct(figure.rows.map(({ panel }) => panel ?? ""));
  const single = panels.length === 1 && panels[0] === "";
  const titles = panels.map((panel) => (single ? panel : panelTitle(figure, panel)));
  const titled = (panel = "") => titles[panels.indexOf(panel)];
  // Panels divide one list of rows between them, so lines of reference stand in it too.
  const rows = figure.rows.map((row) => ({ ...row, panel: titled(row.panel), mark: "row" }));
  const references = referencesOf(figure).flatMap((reference) =>
    (reference.panel === undefined ? panels : [reference.panel]).map((panel) => ({
      ...reference,
      panel: titled(panel),
      mark: "reference",
    })),
  );
  const view = viewOf(figure);
  const shared = {
    $schema: "https://vega.github.io/schema/vega-lite/v6.json",
    title: {
      text: figure.title,
      subtitle: counts(figure),
      anchor: "start",
      fontSize: 14,
      subtitleFontSize: 11,
      subtitleColor: "#555555",
      subtitlePadding: 4,
      offset: 12,
    },
    background: "white",
    data: { values: [...rows, ...references] },
    config: {
      font: `${FONT}, Verdana, sans-serif`,
      // Within the panel, so that those with and without numbers are equally high.
      axisYQuantitative: { labelFlush: true },
      axis: {
        labelFontSize: 11,
        titleFontSize: 12,
        titleFontWeight: "normal",
        gridColor: "#e8e8e8",
        labelLimit: 400,
        // Titles stand beside the labels, however long these are.
        maxExtent: 1000,
      },
      legend: {
        labelFontSize: 11,
        titleFontSize: 12,
        titleFontWeight: "normal",
        labelLimit: 500,
        symbolOpacity: 1,
        symbolSize: 80,
      },
      header: { labelFontSize: 12, titleFontSize: 12 },
      view: { stroke: "#cccccc" },
    },
  };
  const facet = { field: "panel", type: "nominal", title: null, sort: titles };
  const spec: Spec = single
    ? { ...shared, ...view }
    : {
        ...shared,
        facet,
        bounds: "flush",
        spacing: PANEL_GAP,
        columns: Math.max(1, Math.floor(PAGE_WIDTH / Math.max(view.width, PANEL_WIDTH))),
        spec: view,
      };
  // The compiler cannot follow Vega-Lite's own types through such a composition; compiling the specification checks it.
  return spec as unknown as TopLevelSpec;
}

function referencesOf(figure: Figure): readonly Reference[] {
  return "references" in figure ? (figure.references ?? []) : [];
}

function viewOf(figure: Figure): View {
  switch (figure.kind) {
    case "lines":
      return linesView(figure);
    case "bars":
      return barsView(figure);
    case "heat":
      return heatView(figure);
    case "scatter":
      return scatterView(figure);
  }
}

function linesView(figure: LinesFigure): View {
  const { x, y, rows, references = [] } = figure;
  const whole = rows.every((row) => Number.isInteger(row.x));
  const axis = whole ? { tickMinStep: 1, format: "d" } : {};
  const across = { field: "x", type: "quantitative", title: x, scale: { zero: false, nice: false }, axis };
  const up = { field: "y", type: "quantitative", title: y, scale: { domain: rangeOf(figure) } };
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

function barsView(figure: BarsFigure): View {
  const { x, y, rows, references = [] } = figure;
  const groups = distinct(rows.map((row) => row.x));
  const series = rows.map((row) => row.series);
  const up = { field: "y", type: "quantitative", title: y, scale: { domain: rangeOf(figure) } };
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

function referenceLine(references: readonly Reference[], up: Spec) {
  const labels = distinct(references.map(({ label }) => label));
  const range = labels.map((_, i) => DASHES[i % DASHES.length]);
  return {
    transform: REFERENCES,
    mark: { type: "rule", color: INK, strokeWidth: 1.2 },
    encoding: {
      y: up,
      strokeDash: {
        field: "label",
        type: "nominal",
        title: null,
        sort: labels,
        scale: { domain: labels, range },
        // Long enough to see the dashes.
        legend: { symbolSize: 600 },
      },
    },
  };
}

function heatView({ x, y, value, diverging, rows }: HeatFigure): View {
  const columns = distinct(rows.map((row) => row.x));
  const lines = distinct(rows.map((row) => row.y));
  const { ticks, ...scale } = heatScale(
    rows.map((row) => row.value),
    diverging,
  );
  const place = {
    x: {
      field: "x",
      type: "ordinal",
      title: x,
      sort: columns,
      axis: { labelAngle: 0, labelOverlap: true },
    },
    y: { field: "y", type: "ordinal", title: y, sort: lines, axis: { labelOverlap: true } },
  };
  const legend = { values: ticks, format: ".2f", labelOverlap: false };
  const squares = {
    transform: ROWS,
    mark: { type: "rect" },
    encoding: { ...place, color: { field: "value", type: "quantitative", title: value, scale, legend } },
  };
  // Black within white, so that it is seen on every colour.
  const outlines = [
    { stroke: "#ffffff", strokeWidth: 3.5 },
    { stroke: "#000000", strokeWidth: 1.5 },
  ].map((mark) => ({ transform: CHOSEN, mark: { type: "rect", filled: false, ...mark }, encoding: place }));
  return {
    width: Math.min(640, columns.length * SQUARE),
    height: Math.min(640, lines.length * SQUARE),
    layer: rows.some(({ chosen }) => chosen) ? [squares, ...outlines] : [squares],
  };
}

function scatterView({ x, y, group, filling, rows }: ScatterFigure): View {
  // A unit is as long across as up, in all panels.
  const half =
    0.53 * Math.max(...(["x", "y"] as const).map((axis) => extent(rows.map((row) => row[axis])).width), 1e-9);
  const axis = (field: "x" | "y", title: string) => {
    const { middle } = extent(rows.map((row) => row[field]));
    return {
      field,
      type: "quantitative",
      title,
      scale: { domain: [middle - half, middle + half], nice: false, zero: false },
      axis: { labels: false, ticks: false, grid: false },
    };
  };
  const groups = rows.map((row) => row.group);
  const fillings = distinct(rows.map((row) => row.filling));
  const colour = { ...nominal("group", group, groups), ...palette(groups) };
  const filled = (kind: string) => ({
    condition: fillings.map((name, i) => ({
      test: `${kind} === ${JSON.stringify(name)}`,
      value: FILLINGS[i % FILLINGS.length],
    })),
    value: 0,
  });
  return {
    width: SCATTER_SIDE,
    height: SCATTER_SIDE,
    mark: { type: "point", size: 55, strokeWidth: 1.3, strokeOpacity: 0.9 },
    encoding: {
      x: axis("x", x),
      y: axis("y", y),
      fill: colour,
      stroke: colour,
      shape: shapes("group", group, groups),
      fillOpacity: filled("datum.filling"),
      // There is no legend for filling; that of an opacity which is always 1 is made to show it.
      opacity: {
        ...nominal("filling", filling, fillings),
        scale: { domain: fillings, range: fillings.map(() => 1) },
        legend: {
          symbolFillColor: INK,
          symbolStrokeColor: INK,
          encoding: { symbols: { fillOpacity: filled("datum.value") } },
        },
      },
    },
  };
}

function extent(values: readonly number[]): { width: number; middle: number } {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  return { width: high - low, middle: (low + high) / 2 };
}

/** See `range` of figures. */
function rangeOf({ range, rows, references = [] }: LinesFigure | BarsFigure): readonly [number, number] {
  if (range) return range;
  const values = [
    ...rows.flatMap(({ y, low = y, high = y }) => [y, low, high]),
    ...references.map(({ y }) => y),
  ];
  const [low, high] = [Math.min(0, ...values), Math.max(0, ...values)];
  if (low >= 0 && high <= 1) return [0, 1];
  if (low >= -1 && high <= 1) return [-1, 1];
  // Room for a point at either end.
  return [low < 0 ? low * 1.05 : 0, high * 1.05];
}
