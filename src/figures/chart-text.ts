import { foldedTable } from "../analysis/text-table.ts";
import type { Chart } from "./chart.ts";

/** A chart for a terminal: its title, and a table for each panel. */
export function chartText(chart: Chart): string {
  const panels = [...new Set(chart.rows.map(({ panel }) => panel ?? ""))];
  const parts = panels.map((panel) => {
    const table = panelText(chart, panel);
    return panel === "" ? table : `${panel}\n${table}`;
  });
  return [chart.title, ...parts].join("\n\n");
}

function panelText(chart: Chart, panel: string): string {
  const inPanel = ({ panel: own = "" }: { panel?: string }) => own === panel;
  switch (chart.kind) {
    case "heat":
      return grid(
        chart.y,
        chart.rows.filter(inPanel).map(({ x, y, value, word }) => ({
          across: `${x}`,
          down: `${y}`,
          shown: word === undefined ? short(value) : `${word} ${short(value)}`,
        })),
      );
    case "scatter":
      return `${chart.rows.filter(inPanel).length} points`;
    default:
      return grid(
        chart.x,
        chart.rows
          .filter(inPanel)
          .map(({ x, series, y }) => ({ across: series, down: `${x}`, shown: short(y) })),
      );
  }
}

interface Entry {
  readonly across: string;
  readonly down: string;
  readonly shown: string;
}

function grid(corner: string, entries: readonly Entry[]): string {
  const columns = [...new Set(entries.map(({ across }) => across))];
  const lines = new Map<string, Map<string, string>>();
  for (const { across, down, shown } of entries) {
    const line = lines.get(down) ?? new Map();
    lines.set(down, line.set(across, shown));
  }
  return foldedTable([
    [corner, ...columns.map(onOneLine)],
    ...[...lines].map(([name, line]) => [
      onOneLine(name),
      ...columns.map((column) => line.get(column) ?? ""),
    ]),
  ]);
}

/** Control characters of a name, which would break a line or a terminal, as JSON spells them. */
function onOneLine(name: string): string {
  return name.replace(/\p{Cc}/gu, (control) => JSON.stringify(control).slice(1, -1));
}

/** Three significant digits. */
function short(value: number): string {
  return `${Number(value.toPrecision(3))}`;
}
