import { type GridProgress, progressLine, progressRows } from "#experiments/grid/queue/progress";
import { table } from "../../terminal/layout.ts";
import { note } from "../../terminal/output.ts";
import { paced } from "../../terminal/progress.ts";

/** Seconds between two lines where no table can be drawn: grids take hours. */
const LINE_SECONDS = 30;
/** Seconds between two tables. */
const TABLE_SECONDS = 0.5;
/** Lines of the terminal that a table leaves to others. */
const OTHER_LINES = 4;

export interface GridDisplay extends Disposable {
  show(progress: GridProgress): void;
  /** Says something by the way. */
  note(text: string): void;
}

/** Shows how far a grid is: as a table that is drawn anew if stderr is a terminal, else as a line now and then. */
export function gridProgress(stream: NodeJS.WriteStream = process.stderr): GridDisplay {
  return stream.isTTY ? liveTable(stream) : lines();
}

function lines(): GridDisplay {
  const isDue = paced(LINE_SECONDS, Number.NEGATIVE_INFINITY);
  return {
    show: (progress) => {
      if (isDue()) note(progressLine(progress));
    },
    note,
    [Symbol.dispose]: () => {},
  };
}

function liveTable(stream: NodeJS.WriteStream): GridDisplay {
  const isDue = paced(TABLE_SECONDS, Number.NEGATIVE_INFINITY);
  let drawn: readonly string[] = [];
  let isClosed = false;
  const clear = () => {
    if (drawn.length > 0) stream.write(`\u001b[${drawn.length}A\u001b[J`);
  };
  const draw = (next: readonly string[]) => {
    clear();
    drawn = next;
    if (drawn.length > 0) stream.write(`${drawn.join("\n")}\n`);
  };
  return {
    show: (progress) => {
      if (!isClosed && isDue()) draw(tableLines(progress, stream.columns, stream.rows));
    },
    note: (text) => {
      clear();
      stream.write(`${text}\n`);
      if (drawn.length > 0) stream.write(`${drawn.join("\n")}\n`);
    },
    [Symbol.dispose]: () => {
      isClosed = true;
      draw([]);
    },
  };
}

/** As many rows as there is room for, those first of which something is left; the last is of all together. */
export function tableLines(progress: GridProgress, columns = 100, rows = 24): string[] {
  const [heading, ...all] = progressRows(progress);
  const room = Math.max(2, rows - OTHER_LINES);
  const [total] = progress.runs.length > 1 ? all.splice(-1) : [];
  const isOpen = (i: number) =>
    progress.runs[i]!.finished + progress.runs[i]!.givenUp < progress.runs[i]!.cells;
  const places = all.map((_, i) => i).sort((a, b) => Number(isOpen(b)) - Number(isOpen(a)) || a - b);
  const shown =
    all.length > room ? places.slice(0, room - 1).sort((a, b) => a - b) : places.sort((a, b) => a - b);
  const left = all.length - shown.length;
  const right = heading!.map((_, i) => i).slice(1);
  const lines = table([heading!, ...shown.map((i) => all[i]!), ...(total ? [total] : [])], right).split("\n");
  if (left > 0) lines.splice(-1, 0, `… and ${left} more`);
  return [...lines, progressLine(progress)].map((line) => line.slice(0, columns));
}
