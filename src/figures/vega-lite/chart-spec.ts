import type { Chart, Reference } from "../chart.ts";
import { counts, panelTitle } from "../chart-caption.ts";
import { barsView } from "./bars.ts";
import { frame, PAGE_WIDTH } from "./frame.ts";
import { distinct, type Spec } from "./groupings.ts";
import { heatView } from "./heat.ts";
import { linesView } from "./lines.ts";
import { scatterView } from "./scatter.ts";
import { PANEL_WIDTH, type View } from "./values.ts";

/** Between panels: axis titles and numbers lie there. */
const PANEL_GAP = { row: 70, column: 40 };

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
  const view = viewOf(chart);
  const shared = {
    ...frame(chart.title, [...(chart.lines ?? []), counts(chart)].filter(Boolean)),
    data: { values: [...rows, ...references] },
  };
  if (single) return { ...shared, ...view };
  return {
    ...shared,
    facet: { field: "panel", type: "nominal", title: null, sort: titles },
    bounds: "flush",
    spacing: view.panelGap ?? PANEL_GAP,
    columns: columnsOf(panels.length, view.width),
    spec: view,
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
