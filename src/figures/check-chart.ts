import {
  aNumber,
  anObject,
  anyNumber,
  aString,
  checkArgument,
  type Expected,
  either,
  oneOf,
} from "../arguments.ts";
import type { Chart } from "./chart.ts";

const aName = either(aString, aNumber);

/** What a chart of each kind has to have beside its title and axes, and what each of its rows has to have. */
const KINDS: Readonly<Record<Chart["kind"], { chart: Fields; row: Fields }>> = {
  lines: { chart: {}, row: { x: aNumber, y: anyNumber, series: aString } },
  bars: { chart: {}, row: { x: aString, y: anyNumber, series: aString } },
  heat: { chart: { value: aString }, row: { x: aName, y: aName, value: anyNumber } },
  scatter: {
    chart: { group: aString, filling: aString },
    row: { x: aNumber, y: aNumber, group: aString, filling: aString },
  },
};
type Fields = Readonly<Record<string, Expected>>;

const COMMON: Fields = {
  kind: oneOf(...Object.keys(KINDS)),
  title: aString,
  x: aString,
  y: aString,
  rows: {
    words: "a list of rows, at least one",
    holds: (rows) => Array.isArray(rows) && rows.length > 0,
  },
};

/** Throws ArgumentError, naming the field, unless a chart has what its kind needs. */
export function checkChart(call: string, chart: Chart): void {
  checkArgument(call, "chart", chart, anObject);
  checkFields(call, "chart", chart, COMMON);
  const { chart: own, row } = KINDS[chart.kind];
  checkFields(call, "chart", chart, own);
  for (const [i, each] of chart.rows.entries()) {
    if (!anObject.holds(each)) checkArgument(call, `chart.rows[${i}]`, each, anObject);
    checkFields(call, `chart.rows[${i}]`, each, row);
  }
  if (!("references" in chart) || chart.references === undefined) return;
  for (const [i, reference] of chart.references.entries()) {
    checkFields(call, `chart.references[${i}]`, reference, { label: aString, y: aNumber });
  }
}

function checkFields(call: string, name: string, value: object, fields: Fields): void {
  for (const [field, expected] of Object.entries(fields)) {
    const found = (value as Record<string, unknown>)[field];
    if (!expected.holds(found)) checkArgument(call, `${name}.${field}`, found, expected);
  }
}
