import { CsvError, parse } from "csv-parse/browser/esm/sync";
import { XpatchError } from "../errors.ts";
import { checkInputs, ITEM_FIELDS, readItem, type Task } from "./task.ts";

/** Divides right answers within a cell. */
const OR = "|";

const OPTIONAL = ITEM_FIELDS.filter((name) => name !== "input" && name !== "output").join(", ");

/**
 * Reads a task from CSV (RFC 4180): a first line with the names of the columns, `input` and `output`, and optionally
 * `image`, `emoji`, `split`, `text`, `question` and `answer`, which mean what they mean in {@link parseTask}; then an item a
 * line. Several right outputs, or answers, are divided by `|`. The task has the file's name and no instruction.
 *
 * @param where the file's path or URL
 * @throws XpatchError saying which line and field is wrong
 */
export function parseTaskCsv(text: string, where: string): Task {
  const [header, ...lines] = readLines(text, where);
  const columns = header?.record ?? [];
  const known = (column: string) => ITEM_FIELDS.some((name) => name === column);
  const odd = columns.find((column, i) => !known(column) || columns.indexOf(column) !== i);
  if (!columns.includes("input") || !columns.includes("output") || odd !== undefined) {
    throw new XpatchError(
      `${where}: expected a first line with the columns input and output, and optionally ${OPTIONAL}, ` +
        `each once; found ${JSON.stringify(columns.join(","))}`,
    );
  }
  if (lines.length === 0) throw new XpatchError(`${where}: expected an item a line, found none`);
  const items = lines.map(({ record, info }) => {
    // An empty cell is a field that is not given.
    const cells = columns.flatMap((column, i) => (record[i] === "" ? [] : [[column, record[i]!] as const]));
    const { output, answer, ...fields } = Object.fromEntries(cells);
    const item = { ...fields, output: divided(output), answer: divided(answer) };
    return readItem(item, `${where}: line ${info.lines}`, where);
  });
  checkInputs(items, where);
  return { name: fileName(where), items };
}

function divided(cell: string | undefined): string[] | undefined {
  return cell?.split(OR).map((text) => text.trim());
}

interface Line {
  readonly record: readonly string[];
  /** With the number of the line that it ends on. */
  readonly info: { readonly lines: number };
}

function readLines(text: string, where: string): Line[] {
  try {
    return parse(text, { bom: true, info: true, skip_empty_lines: true, trim: true }) as unknown as Line[];
  } catch (cause) {
    if (cause instanceof CsvError) throw new XpatchError(`${where}: ${cause.message}`, { cause });
    throw cause;
  }
}

/** `tasks/my-task.csv` → `my-task` */
function fileName(where: string): string {
  const [path = where] = where.split(/[?#]/);
  return path.slice(Math.max(path.lastIndexOf("/"), path.lastIndexOf("\\")) + 1).replace(/\.csv$/i, "");
}
