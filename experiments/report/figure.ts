import type { BarsChart, HeatChart, LinesChart, ScatterChart } from "xpatch";
import type { Estimate } from "../statistics/estimate.ts";

/** What a figure of the report is, beside its chart. */
interface Kept {
  /** Its file's name, without extension. */
  readonly name: string;
  /** What is seen, and of which items; what the marks are and n are added to it. */
  readonly caption: string;
}

export type LinesFigure = LinesChart & Kept;
export type BarsFigure = BarsChart & Kept;
export type HeatFigure = HeatChart & Kept;
export type ScatterFigure = ScatterChart & Kept;
/** What a figure shows, as plain data; the library draws it. */
export type Figure = LinesFigure | BarsFigure | HeatFigure | ScatterFigure;

/** An estimate as part of a row. */
export function pointOf({ mean, ...rest }: Estimate): { readonly y: number } & Omit<Estimate, "mean"> {
  return { y: mean, ...rest };
}
