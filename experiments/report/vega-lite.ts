import type { TopLevelSpec } from "vega-lite";
import type { BarsFigure, Figure, HeatFigure, LinesFigure, ScatterFigure } from "./figure.ts";

/** Carried by the package dejavu-fonts-ttf; browsers without it take the next one. */
export const FONT = "DejaVu Sans";

/** Okabe and Ito 2008: told apart by colour-blind readers. */
const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999933"];

const PANEL_WIDTH = 300;
const PANEL_HEIGHT = 220;
/** Pixels of a square of a heat map, if they fit. */
const SQUARE = 22;

/** Pixels that panels may take side by side. */
const PAGE_WIDTH = 1000;
/** Pixels of a letter of a label, about. */
const LETTER = 7;

/** A part of a specification. */
type Spec = Readonly<Record<string, unknown>>;

/** A panel. */
interface View extends Spec {
  readonly width: number;
}

/** A figure as a specification of Vega-Lite. */
export function toVegaLite(figure: Figure): TopLevelSpec {
  const panels = distinct(figure.rows.map(({ panel }) => panel ?? ""));
  const view = viewOf(figure);
  const shared = {
    $schema: "https://vega.github.io/schema/vega-lite/v6.json",
    title: { text: figure.title, anchor: "start", fontSize: 14, offset: 12 },
    background: "white",
    data: { values: figure.rows },
    config: {
      font: `${FONT}, Verdana, sans-serif`,
      axis: {
        labelFontSize: 11,
        titleFontSize: 12,
        titleFontWeight: "normal",
        gridColor: "#e8e8e8",
        labelLimit: 400,
      },
      legend: {
        labelFontSize: 11,
        titleFontSize: 12,
        titleFontWeight: "normal",
        labelLimit: 300,
        symbolOpacity: 1,
      },
      header: { labelFontSize: 12, titleFontSize: 12 },
      view: { stroke: "#cccccc" },
    },
  };
  const facet = { field: "panel", type: "nominal", title: null, sort: panels };
  const single = panels.length === 1 && panels[0] === "";
  const spec: Spec = single
    ? { ...shared, ...view }
    : {
        ...shared,
        facet,
        columns: Math.max(1, Math.floor(PAGE_WIDTH / Math.max(view.width, PANEL_WIDTH))),
        spec: view,
      };
  // The compiler cannot follow Vega-Lite's own types through such a composition; compiling the specification checks it.
  return spec as unknown as TopLevelSpec;
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

function linesView({ x, y, rows }: LinesFigure): View {
  const whole = rows.every((row) => Number.isInteger(row.x));
  const axis = whole ? { tickMinStep: 1, format: "d" } : {};
  const across = { field: "x", type: "quantitative", title: x, scale: { zero: false, nice: false }, axis };
  const colour = seriesColour(rows);
  const banded = rows.some(({ low }) => low !== undefined);
  const band = {
    mark: { type: "area", opacity: 0.18 },
    encoding: {
      x: across,
      y: { field: "low", type: "quantitative", title: y },
      y2: { field: "high" },
      color: colour,
    },
  };
  const line = {
    mark: { type: "line", strokeWidth: 2 },
    encoding: {
      x: across,
      y: { field: "y", type: "quantitative", title: y, scale: upwards(rows) },
      color: colour,
    },
  };
  return { width: PANEL_WIDTH, height: PANEL_HEIGHT, layer: banded ? [band, line] : [line] };
}

function barsView({ x, y, rows }: BarsFigure): View {
  const groups = distinct(rows.map((row) => row.x));
  const series = distinct(rows.map((row) => row.series));
  const place = {
    x: { field: "x", type: "nominal", title: x, sort: groups, axis: { labelAngle: 0 } },
    xOffset: { field: "series", sort: series },
  };
  const bar = {
    mark: { type: "bar" },
    encoding: {
      ...place,
      y: { field: "y", type: "quantitative", title: y, scale: upwards(rows) },
      color: seriesColour(rows),
    },
  };
  const error = {
    mark: { type: "rule", color: "#222222" },
    encoding: { ...place, y: { field: "low", type: "quantitative", title: y }, y2: { field: "high" } },
  };
  const label = Math.max(...groups.map((group) => group.length)) * LETTER;
  const width = Math.max(PANEL_WIDTH, groups.length * Math.max(series.length * 18, label + LETTER));
  const layer = rows.some(({ low }) => low !== undefined) ? [bar, error] : [bar];
  return { width, height: PANEL_HEIGHT, layer };
}

function heatView({ x, y, value, diverging, rows }: HeatFigure): View {
  const columns = distinct(rows.map((row) => row.x));
  const lines = distinct(rows.map((row) => row.y));
  const values = rows.map((row) => row.value);
  const largest = Math.max(...values.map(Math.abs)) || 1;
  const scale = diverging
    ? { scheme: "redblue", domain: [-largest, largest], reverse: true }
    : { scheme: "viridis", domain: [Math.min(0, ...values), Math.max(0, ...values) || 1] };
  return {
    width: Math.min(640, columns.length * SQUARE),
    height: Math.min(640, lines.length * SQUARE),
    mark: { type: "rect" },
    encoding: {
      x: {
        field: "x",
        type: "ordinal",
        title: x,
        sort: columns,
        axis: { labelAngle: 0, labelOverlap: true },
      },
      y: { field: "y", type: "ordinal", title: y, sort: lines, axis: { labelOverlap: true } },
      color: { field: "value", type: "quantitative", title: value, scale },
    },
  };
}

function scatterView({ x, y, colour, shape, rows }: ScatterFigure): View {
  const axis = (field: string, title: string) => ({
    field,
    type: "quantitative",
    title,
    scale: { zero: false },
  });
  return {
    width: PANEL_WIDTH + 60,
    height: PANEL_HEIGHT + 60,
    mark: { type: "point", filled: true, size: 50, opacity: 0.75 },
    encoding: {
      x: axis("x", x),
      y: axis("y", y),
      color: {
        ...nominal(
          "colour",
          colour,
          rows.map((row) => row.colour),
        ),
        ...palette(rows.map((row) => row.colour)),
      },
      shape: nominal(
        "shape",
        shape,
        rows.map((row) => row.shape),
      ),
    },
  };
}

/** From 0, and up to 1 where nothing differs from 0. */
function upwards(rows: readonly { readonly y: number }[]): Spec {
  return rows.some(({ y }) => y !== 0) ? { zero: true } : { domain: [0, 1] };
}

function seriesColour(rows: readonly { readonly series: string }[]): Spec {
  const series = rows.map((row) => row.series);
  return { ...nominal("series", null, series), ...palette(series) };
}

/** A grouping whose legend keeps the order of the rows. */
function nominal(field: string, title: string | null, values: readonly string[]): Spec {
  return { field, type: "nominal", title, sort: distinct(values) };
}

function palette(values: readonly string[]): Spec {
  const domain = distinct(values);
  // A scheme of twenty for what the palette does not cover.
  return {
    scale:
      domain.length <= COLOURS.length
        ? { domain, range: COLOURS.slice(0, domain.length) }
        : { domain, scheme: "tableau20" },
  };
}

function distinct<T>(values: readonly T[]): T[] {
  return [...new Set(values)];
}
