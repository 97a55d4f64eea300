/**
 * What a chart shows, as plain data; the folder vega-lite draws it, chart-caption.ts says what its marks are, chart-text.ts
 * writes it for a terminal. Rows with a `panel` are shown side by side, a panel each.
 */
export type Chart = LinesChart | BarsChart | HeatChart | ScatterChart;

interface ChartBase {
  readonly title: string;
  /** Below the title; n is added to them. */
  readonly lines?: readonly string[];
  /** What is seen, and of which items; what the marks are and n are added to it. */
  readonly caption?: string;
  /** Axis titles. */
  readonly x: string;
  readonly y: string;
}

interface Panelled {
  readonly panel?: string;
}

/** A value with its confidence interval and what it rests on, if it has them. */
export interface Value extends Panelled {
  readonly y: number;
  readonly low?: number;
  readonly high?: number;
  /** Different inputs, and seeds, over which it is a mean. */
  readonly items?: number;
  readonly seeds?: number;
}

/** A value that does not come from the model, such as chance: a dashed line over a panel, or all, or a group of bars. */
export interface Reference extends Panelled {
  readonly label: string;
  readonly y: number;
  /** The group of bars, if not all. */
  readonly x?: string;
}

export interface ValuedChart extends ChartBase {
  readonly references?: readonly Reference[];
  /** What bands and error bars are; 95 % intervals over inputs and seeds unless given. */
  readonly intervals?: string;
  /**
   * Ends of the axis of values. Unless given, 0 and 1 if no value lies beyond, so that shares can be compared from chart to
   * chart; else what the values need.
   */
  readonly range?: readonly [low: number, high: number];
}

/** Something that was chosen by what is seen, or before. */
interface Choosable {
  /** What rows with `chosen` are; they are ringed or outlined. */
  readonly chosen?: string;
}

/** Lines, with bands between `low` and `high`. */
export interface LinesChart extends ValuedChart, Choosable {
  readonly kind: "lines";
  readonly rows: readonly (Value & {
    readonly x: number;
    readonly series: string;
    readonly chosen?: boolean;
  })[];
}

/** A group of bars for each `x`, one a series, with error bars. */
export interface BarsChart extends ValuedChart {
  readonly kind: "bars";
  readonly rows: readonly (Value & { readonly x: string; readonly series: string })[];
}

/** Coloured squares. */
export interface HeatChart extends ChartBase, Choosable {
  readonly kind: "heat";
  /** What the colour stands for. */
  readonly value: string;
  /** Whether the values have a middle, 0, on whose sides they differ. */
  readonly diverging?: boolean;
  readonly rows: readonly (Panelled & {
    readonly x: string | number;
    readonly y: string | number;
    /** Squares whose value is no number are left white. */
    readonly value: number;
    /** Written in the square. */
    readonly word?: string;
    /** Shown while the pointer is over the square, in SVG and HTML. */
    readonly tooltip?: string;
    readonly items?: number;
    readonly seeds?: number;
    readonly chosen?: boolean;
  })[];
}

/** Points of a plane whose directions mean nothing: only distances can be read, so the axes are equal and have no numbers. */
export interface ScatterChart extends ChartBase {
  readonly kind: "scatter";
  /** What colour and outline stand for. */
  readonly group: string;
  /** What the filling stands for: of up to three kinds. */
  readonly filling: string;
  readonly rows: readonly (Panelled & {
    readonly x: number;
    readonly y: number;
    readonly group: string;
    readonly filling: string;
  })[];
}
