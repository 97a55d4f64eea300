import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { stringify } from "csv-stringify/sync";
import { XpatchError } from "xpatch";
import { writeWhole } from "#src/platform/node-write";
import { encodeParquet, type ParquetColumn } from "#src/tables/parquet-writer";
import type { AskedItemsOf } from "../framework/asked-tasks.ts";
import type { CellRecord } from "../framework/cell-store.ts";
import type { Setting } from "../framework/setting.ts";
import { ANSWER_COLUMNS, ANSWERS_SCHEMA, answerRows } from "./answer-rows.ts";
import { MEASURE_COLUMNS, MEASURES_SCHEMA, measureRows, type ReportedExperiment } from "./measure-rows.ts";

/** How rows are written. */
export const ROW_FORMATS = ["parquet", "csv", "both"] as const;
export type RowFormat = (typeof ROW_FORMATS)[number];

export interface RunToWrite {
  /** Of the run: its cells and its experiments' folders. */
  readonly folder: string;
  readonly setting: Setting;
  readonly records: readonly CellRecord[];
  readonly asked: AskedItemsOf;
}

export interface WrittenRows {
  readonly file: string;
  readonly rows: number;
  readonly bytes: number;
}

type Row = Readonly<Record<string, string | number | boolean | null>>;

/** Rows in a row group, and in a chunk of CSV. */
const GROUP = 65_536;

/**
 * Writes the answers of a run (`answers.parquet`, a row an answer) and what its experiments report (`measures.parquet`, a row a
 * table's cell), and the same as CSV. The same run gives the same bytes.
 */
export async function writeRows(
  { folder, setting, records, asked }: RunToWrite,
  format: RowFormat,
  to = folder,
): Promise<WrittenRows[]> {
  const reported = experimentsIn(folder);
  const experimentsOf = (key: string) => reported.filter(({ keys }) => keys.has(key)).map(({ name }) => name);
  const answers = () => answerRows({ setting, records, asked, experimentsOf });
  const measures = () => measureRows(setting, reported);
  return [
    ...(await writeTable(join(to, "answers"), format, ANSWER_COLUMNS, answers, ANSWERS_SCHEMA)),
    ...(await writeTable(join(to, "measures"), format, MEASURE_COLUMNS, measures, MEASURES_SCHEMA)),
  ];
}

async function writeTable(
  path: string,
  format: RowFormat,
  columns: readonly ParquetColumn[],
  rows: () => Iterable<Row>,
  schema: number,
): Promise<WrittenRows[]> {
  const written: WrittenRows[] = [];
  const write = async (file: string, chunks: (groups: Iterable<Row[]>) => AsyncIterable<Uint8Array>) => {
    let count = 0;
    const counted = function* () {
      for (const group of inGroups(rows())) {
        count += group.length;
        yield group;
      }
    };
    const bytes = await writeWhole(file, chunks(counted()));
    written.push({ file, rows: count, bytes });
  };
  // One of the other kind that is there is written anew, so that none is out of date.
  if (format !== "csv" || existsSync(`${path}.parquet`)) {
    const metadata = { "xpatch.schema": `${schema}` };
    await write(`${path}.parquet`, (groups) =>
      encodeParquet(columns, columnsOf(columns, groups), { metadata }),
    );
  }
  if (format !== "parquet" || existsSync(`${path}.csv`))
    await write(`${path}.csv`, (groups) => csvChunks(columns, groups));
  return written;
}

function* inGroups(rows: Iterable<Row>): Generator<Row[]> {
  let group: Row[] = [];
  for (const row of rows) {
    if (group.push(row) < GROUP) continue;
    yield group;
    group = [];
  }
  if (group.length > 0) yield group;
}

function* columnsOf(columns: readonly ParquetColumn[], groups: Iterable<Row[]>): Generator<unknown[][]> {
  for (const group of groups) yield columns.map(({ name }) => group.map((row) => row[name]!));
}

/** RFC 4180; an empty cell is null, an empty text `""`, and booleans are `true` and `false`, which pandas reads as such. */
async function* csvChunks(
  columns: readonly ParquetColumn[],
  groups: Iterable<Row[]>,
): AsyncGenerator<Uint8Array> {
  const names = columns.map(({ name }) => name);
  const encoder = new TextEncoder();
  const string = (value: string) => (value === "" ? { value, quoted_empty: true } : value);
  const options = { cast: { string, boolean: String } };
  yield encoder.encode(stringify([names]));
  for (const group of groups) {
    yield encoder.encode(
      stringify(
        group.map((row) => names.map((name) => row[name])),
        options,
      ),
    );
  }
}

/** What the folders of a run's experiments say: the keys of their cells, and their tables. Throws XpatchError for damaged ones. */
function experimentsIn(folder: string): (ReportedExperiment & { readonly keys: ReadonlySet<string> })[] {
  const names = readdirSync(folder, { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && existsSync(join(folder, entry.name, "result.json")))
    .map(({ name }) => name)
    .sort();
  return names.map((name) => {
    const path = join(folder, name, "result.json");
    try {
      const { findings, cells } = JSON.parse(readFileSync(path, "utf8"));
      const { tables, controls } = findings;
      const keys = new Set<string>(cells.map(({ key }: CellRecord) => key));
      return { name, findings: { tables, controls }, keys };
    } catch (cause) {
      throw new XpatchError(
        `${path}: expected what xpatch experiment wrote, with findings and cells: ${(cause as Error).message}`,
        { cause },
      );
    }
  });
}
