import {
  aListOf,
  aNumber,
  anObject,
  aString,
  checkArgument,
  checkOptions,
  either,
  isList,
  type Options,
} from "../arguments.ts";
import { ArgumentError } from "../errors.ts";
import type { LinesChart, Reference } from "./chart.ts";
import { chartFigure } from "./chart-figure.ts";
import type { Figure } from "./figure.ts";

/** A value with the ends of its interval. */
export interface CurvePoint {
  readonly x: number;
  readonly y: number;
  readonly low?: number;
  readonly high?: number;
}

/** The values at 0, 1, 2, …, or points. */
export type Curve = ArrayLike<number> | readonly CurvePoint[];

export interface CurveOptions {
  title?: string;
  caption?: string;
  /** Titles of the axes. Default: layer, and none. */
  x?: string;
  y?: string;
  /** Where values of a list without points of its own lie. Default 0, 1, 2, … */
  at?: readonly number[];
  /** Ends of the axis of values. Default: 0 to 1 where no value lies beyond. */
  range?: readonly [number, number];
  /** Dashed lines, by name, such as chance. */
  references?: Readonly<Record<string, number>>;
  /** The place on the x axis that was chosen, which is ringed. */
  chosen?: number;
  /** What the bands between `low` and `high` are. */
  intervals?: string;
}

const OPTIONS: Options<CurveOptions> = {
  title: aString,
  caption: aString,
  x: aString,
  y: aString,
  at: aListOf(aNumber),
  range: {
    words: "a list of two numbers",
    holds: (value) => aListOf(aNumber).holds(value) && (value as number[]).length === 2,
  },
  references: anObject,
  chosen: aNumber,
  intervals: aString,
};

/**
 * Curves by layer, or by anything: one, or several by name. Throws ArgumentError.
 *
 * @example await show(curveFigure({ patched: accuracies }, { y: "accuracy", references: { chance: 0.1 } }));
 */
export function curveFigure(
  curves: Curve | Readonly<Record<string, Curve>>,
  options: CurveOptions = {},
): Figure {
  checkArgument("curveFigure", "curves", curves, isList<Curve>(curves) ? aCurve : either(aCurve, anObject));
  checkOptions("curveFigure", options, OPTIONS);
  const { title, caption, x = "layer", y = "", at, range, references = {}, chosen, intervals } = options;
  for (const [name, value] of Object.entries(references)) {
    checkArgument("curveFigure", `references.${name}`, value, aNumber);
  }
  const named = isList<Curve>(curves) ? { [y || "value"]: curves } : curves;
  const rows = Object.entries(named).flatMap(([series, curve]) =>
    pointsOf(series, curve, at).map((point) => ({
      series,
      ...point,
      ...(point.x === chosen && { chosen: true }),
    })),
  );
  const chart: LinesChart = {
    kind: "lines",
    title: title ?? (y === "" ? "" : `${y} by ${x}`),
    caption,
    x,
    y,
    range,
    intervals: intervals ?? "from low to high",
    references: Object.entries(references).map(([label, value]): Reference => ({ label, y: value })),
    ...(chosen !== undefined && { chosen: `${x} ${chosen}` }),
    rows,
  };
  return chartFigure(chart);
}

const aCurve = { ...aListOf(either(aNumber, anObject)), words: "a list of numbers or of points {x, y}" };

function pointsOf(series: string, curve: Curve, at: readonly number[] | undefined): readonly CurvePoint[] {
  checkArgument("curveFigure", `curves.${series}`, curve, aCurve);
  const values: readonly (number | CurvePoint)[] = Array.from(curve as ArrayLike<number>);
  if (at && values.some((value) => typeof value === "number") && at.length !== values.length) {
    throw new ArgumentError(
      `curveFigure: expected ${at.length} values of "${series}", as many as at has, found ${values.length}`,
    );
  }
  return values.map((value, i) => {
    const point = typeof value === "number" ? { x: at?.[i] ?? i, y: value } : value;
    checkOptions<CurvePoint>("curveFigure", point, POINT, {
      name: `curves.${series}[${i}]`,
      required: ["x", "y"],
    });
    return point;
  });
}

const POINT: Options<CurvePoint> = { x: aNumber, y: aNumber, low: aNumber, high: aNumber };
