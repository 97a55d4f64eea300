import { FileError, XpatchError } from "../errors.ts";
import { nearestHint } from "../nearest.ts";
import type { ByteSource } from "../platform/platform.ts";
import { type Feature, featuresOf } from "../tables/features.ts";
import { type ParquetField, ParquetFile } from "../tables/parquet-file.ts";
import { parquetRows } from "../tables/parquet-rows.ts";
import { csvRows, jsonLines, type TableRow } from "../tables/text-rows.ts";
import { SPLITS, type Split } from "./task.ts";

/** Which columns of a data set an item's fields are; `answers.text` is a field of a struct. */
export interface DatasetColumns {
  readonly output: string;
  /** Without one, items are called by their file's split and their row in it: `train 17`. */
  readonly input?: string;
  readonly image?: string;
  readonly split?: string;
  readonly text?: string;
  readonly question?: string;
  readonly answer?: string;
}

/** A Parquet file of a data set. */
export interface DatasetFile {
  readonly source: ByteSource;
  /** What its name or folder says. */
  readonly split?: Split;
}

/** An item of a data set: the fields of a task file's item, and its picture apart. */
export interface DatasetItem {
  readonly fields: Readonly<Record<string, string | readonly string[]>>;
  /** A path or URL as the data set has it, or the picture's own bytes. */
  readonly image?: string | Uint8Array;
  readonly split?: Split;
  readonly file: string;
  /** File and row, for messages. */
  readonly where: string;
}

const FIELDS = ["input", "output", "image", "split", "text", "question", "answer"] as const;

/**
 * The items of a data set as Hugging Face keeps them: Parquet (class labels by their names, pictures as their bytes), JSON lines or
 * CSV. Rows come one after the other; memory is that of a row group, or of a block of text.
 *
 * Rows that lack an input, an output or a picture where a column is named for it are passed to `leftOut`, and are no items.
 *
 * @throws FileError for files that cannot be read and columns that are not there; XpatchError for values of another kind
 */
export async function* datasetItems(
  files: readonly DatasetFile[],
  columns: DatasetColumns,
  leftOut: (where: string, lacking: string) => void = () => {},
): AsyncGenerator<DatasetItem, void> {
  /** Over the files of a split. */
  const numbers = new Map<string, number>();
  for (const { source, split: ofFile } of files) {
    const { rows, features } = await open(source, columns);
    let row = -1;
    for await (const values of rows) {
      row++;
      const called = ofFile ?? "row";
      const number = numbers.get(called) ?? 0;
      numbers.set(called, number + 1);
      const where = `${source.name}: row ${row}`;
      const read = (field: (typeof FIELDS)[number]) => {
        const column = columns[field];
        return column === undefined ? undefined : valueAt(values, column, features, `${where}: ${column}`);
      };
      const [input, output, image] = [read("input"), read("output"), read("image")];
      const lacking = FIELDS.find(
        (field) =>
          columns[field] !== undefined &&
          ((field === "input" && isMissing(input)) ||
            (field === "output" && isMissing(output)) ||
            (field === "image" && isMissing(image))),
      );
      if (lacking !== undefined) {
        leftOut(where, lacking);
        continue;
      }
      const split = columns.split === undefined ? ofFile : splitNamed(read("split"), where);
      const fields: Record<string, string | string[]> = {
        input:
          columns.input === undefined ? `${called} ${number}` : oneText(input, `${where}: ${columns.input}`),
        output: textsIn(output, `${where}: ${columns.output}`),
      };
      for (const field of ["text", "question"] as const) {
        const value = read(field);
        if (!isMissing(value)) fields[field] = oneText(value, `${where}: ${columns[field]}`);
      }
      const answer = read("answer");
      if (!isMissing(answer)) fields["answer"] = textsIn(answer, `${where}: ${columns.answer}`);
      yield {
        fields,
        file: source.name,
        where,
        ...(split !== undefined && { split }),
        ...(columns.image !== undefined && { image: pictureIn(image, `${where}: ${columns.image}`) }),
      };
    }
  }
}

interface Opened {
  readonly rows: AsyncIterable<TableRow>;
  readonly features: ReadonlyMap<string, Feature>;
}

async function open(source: ByteSource, columns: DatasetColumns): Promise<Opened> {
  const needed = [...new Set(FIELDS.flatMap((field) => columns[field]?.split(".")[0] ?? []))];
  if (/\.parquet$/i.test(source.name)) {
    const file = await ParquetFile.open(source);
    checkColumns(source.name, needed, file.fields);
    return { rows: parquetRows(file, needed), features: featuresOf(file) };
  }
  if (/\.(jsonl|ndjson)$/i.test(source.name)) return { rows: jsonLines(source), features: new Map() };
  if (/\.csv$/i.test(source.name))
    return { rows: withColumns(source.name, csvRows(source), needed), features: new Map() };
  const arrow = /\.arrow$/i.test(source.name)
    ? "; save_to_disk writes .arrow, to_parquet what is read here"
    : "";
  throw new FileError(
    `${source.name}: expected a file that ends in .parquet, .jsonl, .ndjson or .csv${arrow}`,
  );
}

function checkColumns(name: string, needed: readonly string[], fields: readonly ParquetField[]): void {
  const names = fields.map((field) => field.name);
  const lacking = needed.find((column) => !names.includes(column));
  if (lacking === undefined) return;
  const there = fields.map(({ name: column, type }) => `${column} (${type})`).join(", ");
  throw new FileError(`${name}: expected a column ${lacking}, found ${there}${nearestHint(lacking, names)}`);
}

/** Checks the first row, which has all columns of a CSV file. */
async function* withColumns(
  name: string,
  rows: AsyncIterable<TableRow>,
  needed: readonly string[],
): AsyncGenerator<TableRow, void> {
  let first = true;
  for await (const row of rows) {
    if (first)
      checkColumns(
        name,
        needed,
        Object.keys(row).map((column) => ({ name: column, type: "text" })),
      );
    first = false;
    yield row;
  }
}

/** The value of a column, or of a field of structs in it, with class labels by their names. */
function valueAt(
  row: TableRow,
  column: string,
  features: ReadonlyMap<string, Feature>,
  where: string,
): unknown {
  const [first = "", ...path] = column.split(".");
  let value: unknown = row[first];
  let feature = features.get(first);
  for (const name of path) {
    if (isMissing(value)) return undefined;
    if (Array.isArray(value))
      value = value.map((one) => (one as Readonly<Record<string, unknown>> | null)?.[name]);
    else if (typeof value === "object" && value !== null)
      value = (value as Readonly<Record<string, unknown>>)[name];
    else throw new XpatchError(`${where}: expected a struct with ${name}, found ${show(value)}`);
    feature = feature?.fields?.get(name) ?? feature?.of?.fields?.get(name);
  }
  return labelled(value, feature, where);
}

/** Numbers of class labels as their names; −1 is the library's "no label". */
function labelled(value: unknown, feature: Feature | undefined, where: string): unknown {
  if (Array.isArray(value)) return value.map((one) => labelled(one, feature?.of ?? feature, where));
  const names = feature?.names;
  if (names === undefined || isMissing(value)) return value;
  const index = Number(value);
  if (index === -1) return undefined;
  const name = names[index];
  if (name !== undefined) return name;
  throw new XpatchError(
    `${where}: expected a class label from 0 to ${names.length - 1}, found ${show(value)}`,
  );
}

function isMissing(value: unknown): boolean {
  if (Array.isArray(value)) return value.every(isMissing);
  if (typeof value === "object" && value !== null && "bytes" in value) {
    const { bytes, path } = value as { bytes?: unknown; path?: unknown };
    return isMissing(bytes) && isMissing(path);
  }
  return value === undefined || value === null || (typeof value === "string" && value.trim() === "");
}

function oneText(value: unknown, where: string): string {
  const [only, ...more] = textsIn(value, where);
  if (more.length === 0) return only!;
  throw new XpatchError(`${where}: expected one text, found ${more.length + 1}`);
}

/** Texts, whole numbers and booleans as text; several of a list, each once. */
function textsIn(value: unknown, where: string): string[] {
  const values = Array.isArray(value) ? value.filter((one) => !isMissing(one)) : [value];
  const texts = values.map((one) => {
    if (typeof one === "string") return one.trim();
    if (typeof one === "bigint" || typeof one === "boolean") return `${one}`;
    if (typeof one === "number" && Number.isSafeInteger(one)) return `${one}`;
    throw new XpatchError(
      `${where}: expected a text, a class label, a whole number, or a list of such, found ${show(one)}`,
    );
  });
  return [...new Set(texts)];
}

/** `Image` is a struct of bytes and path; where the bytes are there they are the picture, and the path is where it was once. */
function pictureIn(value: unknown, where: string): string | Uint8Array {
  if (typeof value === "string" || value instanceof Uint8Array) return value;
  if (Array.isArray(value)) {
    throw new XpatchError(
      `${where}: expected one picture, found a list; a list of pictures is not supported`,
    );
  }
  if (typeof value === "object" && value !== null && "bytes" in value) {
    const { bytes, path } = value as { bytes?: unknown; path?: unknown };
    if (bytes instanceof Uint8Array) return bytes;
    if (typeof path === "string") return path;
  }
  throw new XpatchError(
    `${where}: expected a picture: bytes, a path, or a struct of both; found ${show(value)}`,
  );
}

const SPLIT_NAMES: Readonly<Record<string, Split>> = {
  train: "train",
  training: "train",
  validation: "validation",
  valid: "validation",
  val: "validation",
  dev: "validation",
  test: "test",
  testing: "test",
};

function splitNamed(value: unknown, where: string): Split {
  const split = typeof value === "string" ? SPLIT_NAMES[value.toLowerCase()] : undefined;
  if (split !== undefined) return split;
  throw new XpatchError(`${where}: expected split to be one of ${SPLITS.join(", ")}, found ${show(value)}`);
}

/** The split that a path names as Hugging Face lays data sets out: `data/train-00000-of-00003.parquet`, `val/a.parquet`. */
export function splitOfPath(path: string): Split | undefined {
  const parts = path.toLowerCase().split(/[\\/]/).reverse();
  for (const part of parts) {
    const word = /^([a-z]+)(?=[-._\d]|$)/.exec(part)?.[1];
    if (word !== undefined && Object.hasOwn(SPLIT_NAMES, word)) return SPLIT_NAMES[word];
  }
  return undefined;
}

function show(value: unknown): string {
  if (value === undefined || value === null) return "nothing";
  if (value instanceof Uint8Array) return `${value.length} bytes`;
  return (
    typeof value === "bigint"
      ? `${value}`
      : JSON.stringify(value, (_, v) => (typeof v === "bigint" ? `${v}` : v))
  ).slice(0, 60);
}
