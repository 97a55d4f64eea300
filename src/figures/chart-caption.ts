import type { Chart, Reference } from "./chart.ts";

/** All that stands below a chart: what is seen, what its marks are, and on how many items. */
export function captionOf(chart: Chart): string {
  return [chart.caption ?? "", ...marks(chart), counts(chart)].filter(Boolean).map(sentence).join(" ");
}

/** The title of a panel, with its own n where panels differ in theirs. */
export function panelTitle(chart: Chart, panel: string): string {
  const rows: readonly Counted[] = chart.rows;
  const own = countOf(rows.filter((row) => row.panel === panel));
  return own === "" || own === countOf(chart.rows) ? panel : `${panel}, n ${own}`;
}

interface Counted {
  readonly panel?: string;
  readonly items?: number;
  readonly seeds?: number;
}

/** `n 50×2`, or a range of either: different inputs, and seeds if there is more than one. */
function countOf(rows: readonly Counted[]): string {
  const counted = rows.filter((row) => row.items !== undefined);
  if (counted.length === 0) return "";
  const range = (values: readonly number[]) => {
    const [low, high] = [Math.min(...values), Math.max(...values)];
    return low === high ? `${low}` : `${low}–${high}`;
  };
  const seeds = range(counted.map((row) => row.seeds ?? 1));
  return `${range(counted.map(({ items }) => items!))}${seeds === "1" ? "" : `×${seeds}`}`;
}

/** `n 50×2 (different inputs × seeds)`; empty where rows do not say. */
export function counts(chart: Chart): string {
  const count = countOf(chart.rows);
  if (count === "") return "";
  return `n ${count}${count.includes("×") ? " (different inputs × seeds)" : " (different inputs)"}`;
}

function marks(chart: Chart): string[] {
  if (chart.kind === "scatter") return ["Axes are equal; only distances can be read."];
  const list: string[] = [];
  if (chart.kind !== "heat") {
    const { kind, intervals = "95 % intervals over inputs and seeds", references = [] } = chart;
    if (chart.rows.some(({ low }) => low !== undefined)) {
      list.push(`${kind === "lines" ? "Bands" : "Error bars"}: ${intervals}.`);
    }
    if (references.length > 0) list.push(`Dashed: ${shownReferences(references)}.`);
  }
  // Each task may have a layer of its own, and then means have none.
  const marked = chart.kind !== "bars" && chart.rows.some(({ chosen }) => chosen);
  if (marked && chart.chosen !== undefined) {
    list.push(`${chart.kind === "heat" ? "Outlined" : "Ringed"}: ${chart.chosen}.`);
  }
  return list;
}

/** Each label once, with its values; where they differ, whose they are. */
function shownReferences(references: readonly Reference[]): string {
  const labels = [...new Set(references.map(({ label }) => label))];
  return labels
    .map((label) => {
      const own = references.filter((one) => one.label === label);
      const values = new Set(own.map(({ y }) => y.toFixed(2)));
      if (values.size === 1) return `${label} ${[...values][0]}`;
      const each = own.map(({ y, panel, x }) => {
        const whose = [x, panel].filter(Boolean).join(", ");
        return `${y.toFixed(2)} (${whose})`;
      });
      return `${label} ${each.join(", ")}`;
    })
    .join("; ");
}

function sentence(text: string): string {
  if (text.startsWith("n ")) return `${text}.`;
  const begun = text.charAt(0).toUpperCase() + text.slice(1);
  return text === "" || /[.!?]$/.test(text) ? begun : `${begun}.`;
}
