import type { Chart, HeatChart, Reference } from "../chart.ts";
import { counts, panelTitle } from "../chart-caption.ts";
import { barsView } from "./bars.ts";
import { frame, HEADER_SIZE, PAGE_WIDTH } from "./frame.ts";
import { distinct, type Spec } from "./groupings.ts";
import { columnParts, heatView } from "./heat.ts";
import { linesView } from "./lines.ts";
import { scatterView } from "./scatter.ts";
import { textWidth } from "./text-width.ts";
import { PANEL_WIDTH, type View } from "./values.ts";

/** Between panels: axis titles and numbers lie there. */
const PANEL_GAP = { row: 70, column: 40 };
/** Between the titles of panels side by side. */
const TITLE_GAP = 24;
/** Between the parts of a chart that is too wide. */
const PART_GAP = 20;

/** A chart as a specification of Vega-Lite. */
export function chartSpec(chart: Chart): Spec {
  const panels = distinct(chart.rows.map(({ panel }) => panel ?? ""));
  const single = panels.length === 1 && panels[0] === "";
  const titles = panels.map((panel) => (single ? panel : panelTitle(chart, panel)));
  const titled = (panel = "") => titles[panels.indexOf(panel)];
  // Panels divide one list of rows between them, so lines of reference stand in it too.
  const rows = chart.rows.map((row) => ({ ...row, panel: titled(row.panel), mark: "row" }));
  const references = referencesOf(chart).flatMap((reference) =>
    (reference.panel === undefined ? panels : [reference.panel]).map((panel) => ({
      ...reference,
      panel: titled(panel),
      mark: "reference",
    })),
  );
  const framed = frame(chart.title, [...(chart.lines ?? []), counts(chart)].filter(Boolean));
  if (single && chart.kind === "heat") {
    const parts = columnParts(chart);
    if (parts.length > 1) return { ...framed, ...inParts(chart, parts) };
  }
  const view = viewOf(chart);
  const shared = { ...framed, data: { values: [...rows, ...references] } };
  if (single) return { ...shared, ...view };
  const { panelGap = PANEL_GAP, width } = view;
  // A title may be wider than its panel, and stands over its middle.
  const widest = titles.reduce(
    (most, title) => Math.max(most, textWidth({ fontSize: HEADER_SIZE }, title)),
    0,
  );
  return {
    ...shared,
    facet: { field: "panel", type: "nominal", title: null, sort: titles },
    bounds: "flush",
    spacing: { ...panelGap, column: Math.max(panelGap.column, Math.ceil(widest + TITLE_GAP - width)) },
    columns: columnsOf(panels.length, Math.max(width, widest)),
    spec: view,
  };
}

/** Parts of a heat map below each other, on one scale of colours. */
function inParts(chart: HeatChart, parts: readonly HeatChart["rows"][]): Spec {
  return {
    columns: 1,
    spacing: PART_GAP,
    concat: parts.map((part) => ({
      ...heatView(chart, part),
      data: { values: part.map((row) => ({ ...row, mark: "row" })) },
    })),
  };
}

/** As many as fit, or fewer where the rows are as many still: the axes stand below the last row. */
function columnsOf(panels: number, width: number): number {
  const most = Math.max(1, Math.floor(PAGE_WIDTH / Math.max(width, PANEL_WIDTH)));
  return Math.ceil(panels / Math.ceil(panels / most));
}

function referencesOf(chart: Chart): readonly Reference[] {
  return "references" in chart ? (chart.references ?? []) : [];
}

function viewOf(chart: Chart): View {
  switch (chart.kind) {
    case "lines":
      return linesView(chart);
    case "bars":
      return barsView(chart);
    case "heat":
      return heatView(chart);
    case "scatter":
      return scatterView(chart);
  }
}
