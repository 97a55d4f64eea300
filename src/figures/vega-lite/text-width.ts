/** Advances of DejaVu Sans from the blank to the tilde, in hundredths of an em. */
const ADVANCES = [
  32, 40, 46, 84, 64, 95, 78, 27, 39, 39, 50, 84, 32, 36, 32, 34, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 34,
  34, 84, 84, 84, 53, 100, 68, 69, 70, 77, 63, 58, 77, 75, 29, 29, 66, 56, 86, 75, 79, 60, 79, 69, 63, 61, 73,
  68, 99, 69, 61, 69, 39, 34, 39, 84, 50, 50, 61, 63, 55, 63, 62, 35, 63, 63, 28, 28, 58, 28, 97, 63, 61, 63,
  63, 41, 52, 39, 63, 59, 82, 59, 59, 52, 64, 34, 64, 84,
];
/** Of other letters, in ems; and how much wider bold ones are. */
const EM = 0.64;
const BOLD = 1.13;

const WIDE =
  /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{1f000}-\u{3ffff}]/u;

/** Letters, of which Chinese ones and pictograms count for more. */
export function letters(text: string): number {
  let count = 0;
  for (const letter of text) count += WIDE.test(letter) ? 1.6 : 1;
  return count;
}

interface Face {
  readonly fontSize?: number;
  readonly fontWeight?: string | number;
}

/** Pixels that a line of text in DejaVu Sans is wide, for Vega, which without a canvas would guess. */
export function textWidth({ fontSize = 11, fontWeight }: Face, text: unknown): number {
  let ems = 0;
  for (const letter of `${text ?? ""}`) {
    const advance = ADVANCES[letter.codePointAt(0)! - 32];
    ems += advance === undefined ? EM * letters(letter) : advance / 100;
  }
  return ems * fontSize * (fontWeight === "bold" ? BOLD : 1);
}

/** A text in lines of so many letters at most, broken at blanks where there are any; more than `most` lines are cut with "…". */
export function wrapText(text: string, width: number, most: number): string[] {
  const lines: string[] = [];
  let rest = text;
  while (letters(rest) > width && lines.length < most - 1) {
    const room = beginning(rest, width + 1); // with the blank that it may break at
    const blank = room.lastIndexOf(" ");
    const line = blank > 0 ? room.slice(0, blank) : beginning(rest, width) || [...rest][0]!;
    lines.push(line);
    rest = rest.slice(line.length).trimStart();
  }
  return [...lines, letters(rest) > width ? `${beginning(rest, width - 1)}…` : rest];
}

/** As much as fits. */
function beginning(text: string, width: number): string {
  let room = width;
  let fitted = "";
  for (const letter of text) {
    room -= letters(letter);
    if (room < 0) break;
    fitted += letter;
  }
  return fitted;
}
