import {
  aListOf,
  aNumber,
  anObject,
  anyNumber,
  aString,
  checkArgument,
  checkOptions,
  type Expected,
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

/** The values at 0, 1, 2, …, or points. What is not finite is left out. */
export type Curve = ArrayLike<number> | readonly CurvePoint[];

/** Titles, axes and reference lines of {@link curveFigure}. */
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

const aRange: Expected = {
  words: "two numbers, the lower one first",
  holds: (value) => aListOf(aNumber).holds(value) && isRange(value as readonly number[]),
};
const isRange = (value: readonly number[]) => value.length === 2 && value[0]! < value[1]!;

const OPTIONS: Options<CurveOptions> = {
  title: aString,
  caption: aString,
  x: aString,
  y: aString,
  at: aListOf(aNumber),
  range: aRange,
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
  checkArgument(
    "curveFigure",
    "curves",
    curves,
    anObject.holds(curves) ? anObject : either(aCurve, anObject),
  );
  checkOptions("curveFigure", options, OPTIONS);
  const { title, caption, x = "layer", y = "", at, range, references = {}, chosen, intervals } = options;
  const single = isList(curves);
  const named = single ? { [y || "value"]: curves as Curve } : (curves as Readonly<Record<string, Curve>>);
  const rows = Object.entries(named).flatMap(([series, curve]) =>
    pointsOf(series, curve, at, single ? "curves" : `curves.${series}`).map((point) => ({
      series,
      ...point,
      ...(point.x === chosen && { chosen: true }),
    })),
  );
  if (rows.length === 0) throw new ArgumentError("curveFigure: expected at least one value, found none");
  if (chosen !== undefined && !rows.some((row) => row.x === chosen)) {
    throw new ArgumentError(`curveFigure: expected chosen to be where a value lies, found ${chosen}`);
  }
  for (const [label, value] of Object.entries(references)) {
    checkArgument("curveFigure", `references.${label}`, value, aNumber);
  }
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

const aCurve = { ...aListOf(either(anyNumber, anObject)), words: "a list of numbers or of points {x, y}" };

function pointsOf(
  series: string,
  curve: Curve,
  at: readonly number[] | undefined,
  name: string,
): readonly CurvePoint[] {
  checkArgument("curveFigure", name, curve, aCurve);
  const values: readonly (number | CurvePoint)[] = Array.from(curve as ArrayLike<number>);
  if (at && values.some((value) => typeof value === "number") && at.length !== values.length) {
    throw new ArgumentError(
      `curveFigure: expected ${at.length} values of "${series}", as many as at has, found ${values.length}`,
    );
  }
  return values.map((value, i) => {
    const point = typeof value === "number" ? { x: at?.[i] ?? i, y: value } : value;
    checkOptions<CurvePoint>("curveFigure", point, POINT, {
      name: `${name}[${i}]`,
      required: ["x", "y"],
    });
    return point;
  });
}

const POINT: Options<CurvePoint> = { x: aNumber, y: anyNumber, low: anyNumber, high: anyNumber };
