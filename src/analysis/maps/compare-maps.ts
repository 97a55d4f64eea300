import { aKindOf, aNumber, checkArgument, checkOptions, type Options } from "../../arguments.ts";
import { ArgumentError } from "../../errors.ts";
import { INSPECT } from "../../inspect.ts";
import { textTable } from "../text-table.ts";
import { number, type PatchCell, type PatchColumn, PatchMap } from "./patch-map-result.ts";

/** How {@link compareMaps} compares. */
export interface CompareMapsOptions {
  /** How many of the strongest cells to compare. Default 10, or all where there are fewer. */
  top?: number;
}

const OPTIONS: Options<CompareMapsOptions> = { top: aNumber };
const aMap = aKindOf(PatchMap, "from patchMap or attributionMap");

/** A cell of both maps. */
export type ComparedCell = PatchColumn & {
  readonly site: PatchCell["site"];
  /** What the patch does to the metric, by either map. */
  readonly exact: number;
  readonly estimate: number;
};

/** What a {@link MapComparison} holds. */
export interface MapComparisonFields {
  /** Rank correlation of the effects, ties at their mean rank; NaN where all of a map's are equal. */
  readonly spearman: number;
  /** Correlation of the effects; NaN where all of a map's are equal. */
  readonly pearson: number;
  /** Share of the cells with the same sign, of those with at least a hundredth of the largest exact effect. */
  readonly signAgreement: number;
  /** How many of the strongest cells, whichever their sign, are the same in both. */
  readonly top: { readonly count: number; readonly shared: number };
  /** All cells, those first whose estimate is farthest from the exact effect. */
  readonly cells: readonly ComparedCell[];
  /** How the second map was estimated, in words. */
  readonly estimated: string;
  readonly metric: string;
}

/** Of the largest exact effect, what counts for the agreement of signs. */
const SIGNIFICANT = 0.01;
const TOP = 10;
/** Cells that text shows. */
const SHOWN = 5;

/** How well a map estimates another. Plain data, and text where it is printed. */
export class MapComparison implements MapComparisonFields {
  declare readonly spearman: number;
  declare readonly pearson: number;
  declare readonly signAgreement: number;
  declare readonly top: { readonly count: number; readonly shared: number };
  declare readonly cells: readonly ComparedCell[];
  declare readonly estimated: string;
  declare readonly metric: string;

  constructor(fields: MapComparisonFields) {
    Object.assign(this, fields);
  }

  /** The measures, and the cells whose estimates are farthest off, as text. */
  toString(): string {
    const { spearman, pearson, signAgreement, top, cells, estimated, metric } = this;
    const rows = cells
      .slice(0, SHOWN)
      .map((cell) => [`${cell.site}, ${placeOf(cell)}`, number(cell.exact), number(cell.estimate)]);
    return [
      `effects on ${metric}${estimated && `, ${estimated}`}, against exact ones: ${cells.length} cells`,
      `Spearman ${spearman.toFixed(3)}, Pearson ${pearson.toFixed(3)}, same sign ${(100 * signAgreement).toFixed(0)} %, ${top.shared} of the ${top.count} strongest shared`,
      textTable([["most wrong", "exact", "estimate"], ...rows]),
    ].join("\n");
  }

  [INSPECT](): string {
    return this.toString();
  }
}

function placeOf(column: PatchColumn): string {
  return "head" in column ? `head ${column.head}` : `${column.position}`;
}

/**
 * How well one map (`attributionMap`) estimates another of the same cells (`patchMap`): by the change that each cell makes to the
 * metric of the patched prompt. Throws ArgumentError for maps of other sites, columns, metrics or directions.
 *
 * @example console.log(compareMaps(await patchMap(model, a, b), await attributionMap(model, a, b)));
 */
export function compareMaps(
  exact: PatchMap,
  estimate: PatchMap,
  options: CompareMapsOptions = {},
): MapComparison {
  checkArgument("compareMaps", "exact", exact, aMap);
  checkArgument("compareMaps", "estimate", estimate, aMap);
  checkOptions("compareMaps", options, OPTIONS);
  checkSameCells("compareMaps", exact, estimate);
  const { top: wanted = TOP } = options;
  if (!(Number.isInteger(wanted) && wanted > 0)) {
    throw new ArgumentError(`compareMaps: expected top to be a whole number from 1, found ${wanted}`);
  }
  const [a, b] = [effectsOf(exact), effectsOf(estimate)];
  const cells = exact.rows.flatMap((site, r) =>
    exact.columns.map((column, c): ComparedCell => {
      const i = r * exact.columns.length + c;
      return { site, ...column, exact: a[i]!, estimate: b[i]! };
    }),
  );
  const count = Math.min(wanted, cells.length);
  const strongest = new Set(strongestOf(a, count));
  const least = SIGNIFICANT * a.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
  const clear = [...a.keys()].filter((i) => a[i] !== 0 && Math.abs(a[i]!) >= least);
  const agreeing = clear.filter((i) => Math.sign(a[i]!) === Math.sign(b[i]!));
  const wrong = ({ exact, estimate }: ComparedCell) => Math.abs(estimate - exact);
  return new MapComparison({
    spearman: correlation(ranks(a), ranks(b)),
    pearson: correlation(a, b),
    signAgreement: agreeing.length / clear.length,
    top: { count, shared: strongestOf(b, count).filter((i) => strongest.has(i)).length },
    cells: cells.sort((x, y) => wrong(y) - wrong(x)),
    estimated: estimate.estimated,
    metric: exact.metric,
  });
}

/** Throws ArgumentError for maps of other sites, columns, metrics or directions. */
export function checkSameCells(call: string, a: PatchMap, b: PatchMap): void {
  for (const name of ["rows", "columns", "direction", "metric"] as const) {
    const [expected, found] = [a, b].map((map) => JSON.stringify(map[name]));
    if (expected === found) continue;
    throw new ArgumentError(`${call}: expected maps with the same ${name}, found ${expected} and ${found}`);
  }
}

/** What each patch adds to the metric. */
function effectsOf({ values, direction, clean, corrupted }: PatchMap): number[] {
  const from = direction === "denoising" ? corrupted : clean;
  return values.flat().map((value) => value - from);
}

/** Indices of the largest in magnitude. */
function strongestOf(values: readonly number[], count: number): number[] {
  return [...values.keys()].sort((i, j) => Math.abs(values[j]!) - Math.abs(values[i]!)).slice(0, count);
}

/** Ranks from 0; equal values have the mean of theirs. */
function ranks(values: readonly number[]): number[] {
  const order = [...values.keys()].sort((i, j) => values[i]! - values[j]!);
  const found = new Array<number>(values.length);
  for (let start = 0; start < order.length; ) {
    let end = start + 1;
    while (end < order.length && values[order[end]!] === values[order[start]!]) end++;
    for (const i of order.slice(start, end)) found[i] = (start + end - 1) / 2;
    start = end;
  }
  return found;
}

/** Pearson's correlation; NaN where either does not vary. */
function correlation(a: readonly number[], b: readonly number[]): number {
  const centred = (x: readonly number[]) => {
    const mean = x.reduce((total, value) => total + value, 0) / x.length;
    return x.map((value) => value - mean);
  };
  const dot = (x: readonly number[], y: readonly number[]) =>
    x.reduce((total, value, i) => total + value * y[i]!, 0);
  const [x, y] = [centred(a), centred(b)];
  return dot(x, y) / Math.sqrt(dot(x, x) * dot(y, y));
}
