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
