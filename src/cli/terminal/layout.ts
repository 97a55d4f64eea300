/** Columns of the terminal; of a usual one where the output goes elsewhere. */
export function terminalWidth(): number {
  return process.stdout.columns || 100;
}

/** Rows with their columns aligned: the first to the left, numbers (by `right`, their indices) to the right. */
export function table(rows: readonly (readonly string[])[], right: readonly number[] = []): string {
  const widths: number[] = [];
  for (const row of rows) {
    row.forEach((cell, i) => {
      widths[i] = Math.max(widths[i] ?? 0, cell.length);
    });
  }
  const line = (row: readonly string[]) =>
    row
      .map((cell, i) => (right.includes(i) ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!)))
      .join("  ");
  return rows.map((row) => line(row).trimEnd()).join("\n");
}

/** A bar of a chart; `fraction` is from 0 to 1. */
export function bar(fraction: number, width = 40): string {
  const eighths = Math.round(fraction * width * 8);
  return "█".repeat(Math.floor(eighths / 8)) + " ▏▎▍▌▋▊▉".charAt(eighths % 8).trim();
}

/** 134515008 → "134.5 M". */
export function showCount(n: number): string {
  const [unit, size] = (
    [
      ["G", 1e9],
      ["M", 1e6],
      ["k", 1e3],
    ] as const
  ).find(([, s]) => n >= s) ?? ["", 1];
  return unit ? `${(n / size).toFixed(1)} ${unit}` : `${n}`;
}

/** 269060280 → "256.6 MiB". */
export function showBytes(n: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const i = Math.min(units.length - 1, Math.floor(Math.log2(Math.max(1, n)) / 10));
  return `${i ? (n / 2 ** (10 * i)).toFixed(1) : n} ${units[i]}`;
}

/** Text in quotes, on one line. */
export function quote(text: string): string {
  return JSON.stringify(text);
}

/** Control characters, which a model may write, must not reach the terminal. */
export function printable(text: string): string {
  return text.replace(/\p{C}/gu, "�");
}

export function showPercent(fraction: number): string {
  return `${(100 * fraction).toFixed(1)} %`;
}
