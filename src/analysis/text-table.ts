/** Rows of cells as text: the first column to the left, the others to the right, two blanks apart. */
export function textTable(rows: readonly (readonly string[])[]): string {
  const columns = rows.reduce((most, row) => Math.max(most, row.length), 0);
  const widths = Array.from({ length: columns }, (_, i) =>
    rows.reduce((most, row) => Math.max(most, lengthOf(row[i] ?? "")), 0),
  );
  const pad = (cell: string, i: number) => {
    const blanks = " ".repeat(widths[i]! - lengthOf(cell));
    return i === 0 ? cell + blanks : blanks + cell;
  };
  return rows.map((row) => row.map(pad).join("  ").trimEnd()).join("\n");
}

/** Letters of a line, about; a table that is wider goes on below. */
const WIDEST = 120;

/**
 * The same, with a head: columns that do not fit beside each other stand in further tables below, each with the first column.
 */
export function foldedTable(rows: readonly (readonly string[])[]): string {
  const columns = rows.reduce((most, row) => Math.max(most, row.length), 0);
  const width = (i: number) => rows.reduce((most, row) => Math.max(most, lengthOf(row[i] ?? "")), 0);
  const folds: number[][] = [];
  let room = 0;
  for (let i = 1; i < columns; i++) {
    const taken = width(i) + 2;
    if (folds.length === 0 || taken > room) {
      folds.push([]);
      room = WIDEST - width(0);
    }
    folds.at(-1)!.push(i);
    room -= taken;
  }
  if (folds.length <= 1) return textTable(rows);
  return folds
    .map((fold) => textTable(rows.map((row) => [0, ...fold].map((i) => row[i] ?? ""))))
    .join("\n\n");
}

/** A token's text on one line, in quotation marks, cut where it is longer than `most`. */
export function shortToken(text: string, most: number): string {
  const escaped = JSON.stringify(text).slice(1, -1);
  const letters = [...escaped];
  return `"${letters.length > most ? `${letters.slice(0, most - 1).join("")}…` : escaped}"`;
}

/** Code points, near enough to what a terminal shows. */
function lengthOf(text: string): number {
  return [...text].length;
}
