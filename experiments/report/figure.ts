/** What a figure shows, as plain data; vega-lite.ts draws it. Rows with a `panel` are shown side by side, a panel each. */
export type Figure = LinesFigure | BarsFigure | HeatFigure | ScatterFigure;

interface FigureBase {
  /** Its file's name, without extension. */
  readonly name: string;
  readonly title: string;
  /** What is seen, and on how many items. */
  readonly caption: string;
  /** Axis titles. */
  readonly x: string;
  readonly y: string;
}

/** A value with its confidence interval, if it has one. */
interface Interval {
  readonly low?: number;
  readonly high?: number;
}

interface Panelled {
  readonly panel?: string;
}

/** Lines, with bands between `low` and `high`. */
export interface LinesFigure extends FigureBase {
  readonly kind: "lines";
  readonly rows: readonly (Panelled &
    Interval & { readonly x: number; readonly y: number; readonly series: string })[];
}

/** A group of bars for each `x`, one a series, with error bars. */
export interface BarsFigure extends FigureBase {
  readonly kind: "bars";
  readonly rows: readonly (Panelled &
    Interval & { readonly x: string; readonly y: number; readonly series: string })[];
}

/** Coloured squares. */
export interface HeatFigure extends FigureBase {
  readonly kind: "heat";
  /** What the colour stands for. */
  readonly value: string;
  /** Whether the values have a middle, 0, on whose sides they differ. */
  readonly diverging?: boolean;
  readonly rows: readonly (Panelled & {
    readonly x: string | number;
    readonly y: string | number;
    readonly value: number;
  })[];
}

/** Points whose colour and shape stand for two groupings. */
export interface ScatterFigure extends FigureBase {
  readonly kind: "scatter";
  /** What colour and shape stand for. */
  readonly colour: string;
  readonly shape: string;
  readonly rows: readonly (Panelled & {
    readonly x: number;
    readonly y: number;
    readonly colour: string;
    readonly shape: string;
  })[];
}
