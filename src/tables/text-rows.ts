import { CsvError, parse } from "csv-parse/browser/esm/sync";
import { FileError } from "../errors.ts";
import type { ByteSource } from "../platform/platform.ts";

/** A row of a table, by column; values that a file leaves open are null or missing. */
export type TableRow = Readonly<Record<string, unknown>>;

/** Bytes read at a time. */
const CHUNK = 1 << 20;

/** The rows of a file of JSON lines, an object each. Throws FileError, with the line, for others. */
export async function* jsonLines(source: ByteSource): AsyncGenerator<TableRow, void> {
  let line = 0;
  for await (const block of blocks(source, (text) => text.lastIndexOf("\n") + 1)) {
    for (const text of block.split("\n")) {
      line++;
      if (text.trim() === "") continue;
      let value: unknown;
      try {
        value = JSON.parse(text);
      } catch (cause) {
        throw new FileError(`${source.name}: line ${line}: expected JSON: ${(cause as Error).message}`, {
          cause,
        });
      }
      if (typeof value !== "object" || value === null || Array.isArray(value)) {
        throw new FileError(`${source.name}: line ${line}: expected an object, found ${text.slice(0, 40)}`);
      }
      yield value as TableRow;
    }
    line--; // A block ends behind a line break.
  }
}

/** The rows of a CSV file (RFC 4180) whose first line names the columns; an empty cell is null. Throws FileError for others. */
export async function* csvRows(source: ByteSource): AsyncGenerator<TableRow, void> {
  let columns: string[] | undefined;
  for await (const block of blocks(source, endOfRecord)) {
    let records: string[][];
    try {
      records = parse(block, { skip_empty_lines: true });
    } catch (cause) {
      if (cause instanceof CsvError) throw new FileError(`${source.name}: ${cause.message}`, { cause });
      throw cause;
    }
    for (const record of records) {
      if (columns === undefined) {
        columns = record;
        const twice = columns.find((name, i) => columns!.indexOf(name) !== i);
        if (twice !== undefined)
          throw new FileError(`${source.name}: expected each column once, found "${twice}" twice`);
        continue;
      }
      if (record.length !== columns.length) {
        throw new FileError(
          `${source.name}: expected ${columns.length} cells in each line, found ${record.length} in ${record.join().slice(0, 60)}`,
        );
      }
      yield Object.fromEntries(columns.map((name, i) => [name, record[i] === "" ? null : record[i]]));
    }
  }
}

/** Behind the last line break that is in no quoted cell; quotes within one are doubled. */
function endOfRecord(text: string): number {
  let quoted = false;
  let end = 0;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code === 0x22) quoted = !quoted;
    else if (code === 0x0a && !quoted) end = i + 1;
  }
  return end;
}

/**
 * The text of a file (UTF-8) in blocks that end where `end` says that whole rows end, so that memory is that of a block. Throws
 * FileError for what is no UTF-8.
 */
async function* blocks(source: ByteSource, end: (text: string) => number): AsyncGenerator<string, void> {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let rest = "";
  for (let at = 0; at < source.size; at += CHUNK) {
    const bytes = await source.read(at, Math.min(CHUNK, source.size - at));
    try {
      rest += decoder.decode(bytes, { stream: at + CHUNK < source.size });
    } catch (cause) {
      throw new FileError(`${source.name}: expected UTF-8, found other bytes behind ${at}`, { cause });
    }
    const length = end(rest);
    if (length === 0) continue;
    yield rest.slice(0, length);
    rest = rest.slice(length);
  }
  if (rest !== "") yield rest;
}
