import { stringify } from "csv-stringify/sync";
import type { Estimate } from "../statistics/estimate.ts";

export type TableCell = string | number | Estimate;

export interface Table {
  /** Its file's name, without extension. */
  readonly name: string;
  readonly title: string;
  readonly columns: readonly string[];
  readonly rows: readonly (readonly TableCell[])[];
}

/** `0.41 [0.36, 0.46] n 212×3`: a mean, its 95 % interval, and the items and seeds that it rests on. */
export function showEstimate({ mean, low, high, items, seeds }: Estimate): string {
  return `${mean.toFixed(2)} [${low.toFixed(2)}, ${high.toFixed(2)}] n ${items}${seeds > 1 ? `×${seeds}` : ""}`;
}

export function showCell(cell: TableCell): string {
  if (typeof cell === "object") return showEstimate(cell);
  if (typeof cell === "string") return cell;
  return Number.isInteger(cell) ? `${cell}` : cell.toFixed(2);
}

export function tableMarkdown({ columns, rows }: Table): string {
  const line = (cells: readonly string[]) =>
    `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
  const align = columns.map((_, i) => (rows.every((row) => typeof row[i] === "string") ? "---" : "---:"));
  return [line(columns), `|${align.join("|")}|`, ...rows.map((row) => line(row.map(showCell)))].join("\n");
}

/** Estimates take a column for each of their parts. */
export function tableCsv({ columns, rows }: Table): string {
  const estimated = columns.map((_, i) => rows.some((row) => typeof row[i] === "object"));
  const head = columns.flatMap((name, i) =>
    estimated[i] ? [name, `${name} low`, `${name} high`, `${name} items`, `${name} seeds`] : [name],
  );
  const body = rows.map((row) =>
    row.flatMap((cell, i) => {
      if (typeof cell === "object")
        return [cell.mean, cell.low, cell.high, cell.items, cell.seeds].map(String);
      return estimated[i] ? [`${cell}`, "", "", "", ""] : [`${cell}`];
    }),
  );
  return stringify([head, ...body]);
}
