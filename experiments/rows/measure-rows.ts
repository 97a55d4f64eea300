import type { ParquetColumn } from "#src/tables/parquet-writer";
import type { Findings } from "../framework/experiment.ts";
import type { Setting } from "../framework/setting.ts";

/** To be raised whenever a column changes its name, type or meaning. */
export const MEASURES_SCHEMA = 1;

/** The columns of measures; docs/exchange.md says what they mean. */
export const MEASURE_COLUMNS = [
  { name: "schema", type: "int32" },
  { name: "model", type: "string" },
  { name: "model_hash", type: "string" },
  { name: "experiment", type: "string" },
  { name: "table", type: "string" },
  { name: "control", type: "boolean" },
  { name: "row", type: "int32" },
  { name: "label", type: "string" },
  { name: "column", type: "string" },
  { name: "value", type: "float64", nullable: true },
  { name: "low", type: "float64", nullable: true },
  { name: "high", type: "float64", nullable: true },
  { name: "items", type: "int32", nullable: true },
  { name: "seeds", type: "int32", nullable: true },
  { name: "text", type: "string", nullable: true },
] as const satisfies readonly ParquetColumn[];

export type MeasureRow = Readonly<
  Record<(typeof MEASURE_COLUMNS)[number]["name"], string | number | boolean | null>
>;

export interface ReportedExperiment {
  readonly name: string;
  readonly findings: Pick<Findings, "tables" | "controls">;
}

/** Every cell of every table as a row: what experiments report, also those that ask for no answers. */
export function* measureRows(
  { model }: Setting,
  experiments: readonly ReportedExperiment[],
): Generator<MeasureRow> {
  for (const { name: experiment, findings } of experiments) {
    const tables = [
      ...findings.tables.map((table) => ({ table, control: false })),
      ...findings.controls.map((table) => ({ table, control: true })),
    ];
    for (const { table, control } of tables) {
      for (const [row, cells] of table.rows.entries()) {
        // What a row is of stands in the texts before its first number.
        const first = cells.findIndex((cell) => typeof cell !== "string");
        const label = cells.slice(0, first === -1 ? 1 : first).join(" | ");
        for (const [i, cell] of cells.entries()) {
          const estimate = typeof cell === "object" ? cell : undefined;
          yield {
            schema: MEASURES_SCHEMA,
            model: model.name,
            model_hash: model.hash,
            experiment,
            table: table.name,
            control,
            row,
            label,
            column: table.columns[i]!,
            value: estimate?.mean ?? (typeof cell === "number" ? cell : null),
            low: estimate?.low ?? null,
            high: estimate?.high ?? null,
            items: estimate?.items ?? null,
            seeds: estimate?.seeds ?? null,
            text: typeof cell === "string" ? cell : null,
          };
        }
      }
    }
  }
}
