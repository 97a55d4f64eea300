import type { HeatChart } from "../chart.ts";
import { LETTER, PAGE_WIDTH } from "./frame.ts";
import { distinct, type Spec } from "./groupings.ts";
import { heatScale } from "./heat-scale.ts";
import { inkOn } from "./ink.ts";
import { CHOSEN, ROWS, type View } from "./values.ts";

/** Pixels of a square, and of one with a word in it; of squares without words only if they fit. */
const SQUARE = 22;
const WORD = { width: 68, height: 20, fontSize: 10 };
/** More words than these are left to the pointer. */
export const MOST_WORDS = 5000;
const MOST = 640;
/** Of several panels with more columns than these, whose squares are small in any case, so that some stand side by side. */
const MANY = 40;
const MOST_OF_SEVERAL = 300;
/** A tooltip is the larger part of a square in SVG: of more squares there are none. */
const MOST_TOOLTIPS = 20_000;
/** Between panels whose names stand below the last of them. */
const NAMED_GAP = { row: 40, column: 40 };

/** Whether squares have words in them. */
function hasWords({ rows }: HeatChart): boolean {
  return rows.length <= MOST_WORDS && rows.some(({ word }) => word !== undefined);
}

/** The rows of a chart by its columns, in parts that are no wider than a page: one but where squares have words. */
export function columnParts(chart: HeatChart): HeatChart["rows"][] {
  const columns = distinct(chart.rows.map((row) => row.x));
  const parts = hasWords(chart) ? Math.ceil((columns.length * WORD.width) / PAGE_WIDTH) : 1;
  const length = Math.ceil(columns.length / parts);
  return Array.from({ length: Math.ceil(columns.length / length) }, (_, i) => {
    const part = new Set(columns.slice(i * length, (i + 1) * length));
    return chart.rows.filter((row) => part.has(row.x));
  });
}

/** Coloured squares, words in them, outlines around what was chosen; `shown` is the part of the rows that are drawn. */
export function heatView(chart: HeatChart, shown: HeatChart["rows"] = chart.rows): View {
  const { x, y, value, diverging, rows } = chart;
  const columns = distinct(shown.map((row) => row.x));
  const lines = distinct(rows.map((row) => row.y));
  const { ticks, format, ...scale } = heatScale(
    rows.map((row) => row.value),
    diverging,
  );
  const words = hasWords(chart);
  const several = rows.some(({ panel }) => panel !== rows[0]!.panel);
  const most = several && columns.length > MANY ? MOST_OF_SEVERAL : MOST;
  const width = columns.length * (words ? WORD.width : Math.min(SQUARE, most / columns.length));
  const height = lines.length * (words ? WORD.height : Math.min(SQUARE, most / lines.length));
  const longest = columns.reduce((most: number, name) => Math.max(most, `${name}`.length * LETTER), 0);
  // Numbers that do not fit are left out here and there; names cannot be.
  const upright = longest > width / columns.length && columns.some((name) => Number.isNaN(Number(name)));
  const place = {
    x: {
      field: "x",
      type: "ordinal",
      title: x,
      sort: columns,
      axis: upright ? { labelAngle: -90, labelOverlap: true } : { labelAngle: 0, labelOverlap: true },
    },
    y: { field: "y", type: "ordinal", title: y, sort: lines, axis: { labelOverlap: true } },
  };
  const legend = { values: ticks, format, labelOverlap: false };
  const tooltips = rows.length <= MOST_TOOLTIPS && rows.some(({ tooltip }) => tooltip !== undefined);
  const squares = {
    transform: ROWS,
    mark: { type: "rect", aria: tooltips },
    encoding: {
      ...place,
      color: { field: "value", type: "quantitative", title: value, scale, legend },
      ...(tooltips && { description: { field: "tooltip" } }),
    },
  };
  const layer: Spec[] = [squares];
  if (words) layer.push(wordsIn(place, scale.domain, diverging));
  // Black within white, so that it is seen on every colour.
  const outlines = [
    { stroke: "#ffffff", strokeWidth: 3.5 },
    { stroke: "#000000", strokeWidth: 1.5 },
  ].map((mark) => ({ transform: CHOSEN, mark: { type: "rect", filled: false, ...mark }, encoding: place }));
  if (rows.some(({ chosen }) => chosen)) layer.push(...outlines);
  return { width, height, layer, ...(upright && { panelGap: NAMED_GAP }) };
}

function wordsIn(place: Spec, domain: readonly [number, number], diverging = false): Spec {
  return {
    transform: ROWS,
    mark: { type: "text", fontSize: WORD.fontSize, limit: WORD.width - 4 },
    encoding: {
      ...place,
      text: { field: "word" },
      color: inkOn(diverging ? "diverging" : "viridis", domain),
    },
  };
}
