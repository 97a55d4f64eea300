/** 151 MB, 4.2 kB: as file managers count, in powers of ten. */
export function bytesInWords(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`;
  for (const [unit, size] of [
    ["kB", 1e3],
    ["MB", 1e6],
    ["GB", 1e9],
  ] as const) {
    const value = bytes / size;
    if (value < 999.5 || unit === "GB")
      return `${value < 9.95 ? value.toFixed(1) : Math.round(value)} ${unit}`;
  }
  throw new Error("unreachable");
}

/** A probability as it is shown in cells: 73 %, 0.4 %, <0.1 %. */
export function percentInWords(probability: number): string {
  const percent = 100 * probability;
  if (percent >= 9.95) return `${Math.round(percent)} %`;
  return percent >= 0.1 || percent === 0 ? `${percent.toFixed(1)} %` : "<0.1 %";
}

/** Other blanks, controls, and marks without a shape: by their code. */
const UNSEEN = /[\p{Z}\p{C}]/gu;

/** A token as it is shown: blanks and line ends are to be seen. */
export function tokenInWords(text: string): string {
  const seen = text.replaceAll(" ", "␣").replaceAll("\n", "⏎").replaceAll("\t", "⇥");
  return seen.replace(UNSEEN, (mark) => `‹${mark.codePointAt(0)!.toString(16)}›`) || "∅";
}
