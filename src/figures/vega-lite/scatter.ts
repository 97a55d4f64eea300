import type { ScatterChart } from "../chart.ts";
import { INK } from "./frame.ts";
import { distinct, nominal, palette, shapes } from "./groupings.ts";
import type { View } from "./values.ts";

const SIDE = 300;
/** How much of a point is filled, for each of the kinds that filling stands for. */
const FILLINGS = [0.9, 0, 0.35];

/** Points in a plane with equal axes. */
export function scatterView({ x, y, group, filling, rows }: ScatterChart): View {
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
    width: SIDE,
    height: SIDE,
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
