import type { BarsChart, LinesChart, Reference } from "../chart.ts";
import { INK } from "./frame.ts";
import { distinct, type Spec } from "./groupings.ts";

/** A panel. */
export interface View extends Spec {
  readonly width: number;
  /** Pixels between panels, where not as usual. */
  readonly panelGap?: { readonly row: number; readonly column: number };
}

export const PANEL_WIDTH = 300;
export const PANEL_HEIGHT = 220;

/** What is drawn of the rows in a layer. */
export const ROWS = [{ filter: "datum.mark === 'row'" }];
export const CHOSEN = [{ filter: "datum.mark === 'row' && datum.chosen === true" }];
export const REFERENCES = [{ filter: "datum.mark === 'reference'" }];

/** Of references, which have no shapes. */
const DASHES = [
  [6, 3],
  [2, 2],
  [9, 2, 2, 2],
  [1, 4],
];

/** Dashed lines with a legend. */
export function referenceLine(references: readonly Reference[], up: Spec) {
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

/** See `range` of charts. */
export function rangeOf({ range, rows, references = [] }: LinesChart | BarsChart): readonly [number, number] {
  if (range) return range;
  const values = [
    ...rows.flatMap(({ y, low = y, high = y }) => [y, low, high]),
    ...references.map(({ y }) => y),
  ];
  let [low, high] = [0, 0];
  for (const value of values) {
    if (!Number.isFinite(value)) continue;
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  if (low >= 0 && high <= 1) return [0, 1];
  if (low >= -1 && high <= 1) return [-1, 1];
  // Room for a point at either end.
  return [low < 0 ? low * 1.05 : 0, high * 1.05];
}
