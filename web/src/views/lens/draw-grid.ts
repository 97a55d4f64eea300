/* The grid as pixels. Thousands of cells are one canvas: what is out of sight costs nothing. */

export type Rgb = readonly [red: number, green: number, blue: number];

export interface GridColours {
  readonly panel: Rgb;
  readonly ground: Rgb;
  readonly heat: Rgb;
  readonly ink: Rgb;
  readonly soft: Rgb;
  readonly accent: Rgb;
  readonly reach: Rgb;
}

export interface DrawnCell {
  readonly text: string;
  /** Between 0 and 1. */
  readonly value: number;
}

export interface GridPicture {
  readonly rows: readonly { readonly head: string; readonly isPatch: boolean }[];
  readonly columns: number;
  cell(row: number, column: number): DrawnCell | undefined;
  isChosen(row: number, column: number): boolean;
  isReached(row: number, column: number): boolean;
  isEdited(row: number, column: number): boolean;
  /** Where something would be put. */
  isAimed(row: number, column: number): boolean;
  readonly at: { readonly row: number; readonly column: number } | undefined;
  /** Whether `at` has the focus. */
  readonly focused: boolean;
}

/** Sizes in CSS pixels. */
export interface GridSizes {
  readonly head: { readonly width: number; readonly height: number };
  readonly cell: { readonly width: number; readonly height: number };
}

export const ROW_HEIGHT = 20;
const WORDS_WIDTH = 58;
const LEAST_WIDTH = 5;

/** Cells with room for words, or so narrow that all layers are in sight. */
export function gridSizes(words: boolean, columns: number, width: number): GridSizes {
  const head = { width: 84, height: 22 };
  const fitting = Math.floor((width - head.width) / Math.max(1, columns));
  const cell = words ? Math.max(WORDS_WIDTH, fitting) : Math.min(WORDS_WIDTH, Math.max(LEAST_WIDTH, fitting));
  return { head, cell: { width: cell, height: ROW_HEIGHT } };
}

/** The cell under a point of the grid's own field, in its scroll position; columns and rows below 0 are heads. */
export function spotUnder(
  { head, cell }: GridSizes,
  point: { readonly x: number; readonly y: number },
  scroll: { readonly left: number; readonly top: number },
): { readonly row: number; readonly column: number } {
  return {
    row: point.y < head.height ? -1 : Math.floor((point.y - head.height + scroll.top) / cell.height),
    column: point.x < head.width ? -1 : Math.floor((point.x - head.width + scroll.left) / cell.width),
  };
}

export interface GridWindow {
  readonly width: number;
  readonly height: number;
  readonly left: number;
  readonly top: number;
}

const MONO = '11px ui-monospace, "SF Mono", "Cascadia Mono", "DejaVu Sans Mono", Menlo, Consolas, monospace';
const SANS = '10px system-ui, "Segoe UI", Roboto, "Liberation Sans", sans-serif';
const BRIGHT: Rgb = [255, 255, 255];
const DARK: Rgb = [16, 18, 20];

export function drawGrid(
  context: CanvasRenderingContext2D,
  picture: GridPicture,
  sizes: GridSizes,
  { width, height, left, top }: GridWindow,
  colours: GridColours,
): void {
  const { head, cell } = sizes;
  const { rows, columns } = picture;
  context.fillStyle = css(colours.panel);
  context.fillRect(0, 0, width, height);
  const firstRow = Math.floor(top / cell.height);
  const lastRow = Math.min(rows.length - 1, Math.floor((top + height - head.height) / cell.height));
  const firstColumn = Math.floor(left / cell.width);
  const lastColumn = Math.min(columns - 1, Math.floor((left + width - head.width) / cell.width));
  context.textBaseline = "middle";

  context.save();
  context.beginPath();
  context.rect(head.width, head.height, width - head.width, height - head.height);
  context.clip();
  context.font = MONO;
  context.textAlign = "center";
  for (let row = firstRow; row <= lastRow; row++) {
    for (let column = firstColumn; column <= lastColumn; column++) {
      const x = head.width + column * cell.width - left;
      const y = head.height + row * cell.height - top;
      drawCell(context, picture, row, column, { x, y, width: cell.width, height: cell.height }, colours);
    }
  }
  const { at } = picture;
  if (at) {
    const x = head.width + at.column * cell.width - left;
    const y = head.height + at.row * cell.height - top;
    context.strokeStyle = css(colours.ink);
    context.lineWidth = 1;
    const inset = Math.min(picture.focused ? 2.5 : 3.5, cell.width / 2 - 1.5);
    context.strokeRect(x + inset, y + inset, cell.width - 1 - 2 * inset, cell.height - 1 - 2 * inset);
  }
  context.restore();

  context.font = MONO;
  context.textAlign = "left";
  context.save();
  context.beginPath();
  context.rect(0, head.height, head.width, height - head.height);
  context.clip();
  for (let row = firstRow; row <= lastRow; row++) {
    const { head: words, isPatch } = rows[row]!;
    context.fillStyle = css(row === at?.row ? colours.ink : isPatch ? colours.soft : colours.ink);
    const y = head.height + row * cell.height - top + cell.height / 2;
    context.fillText(fitted(context, words, head.width - 10), 4, y);
  }
  context.restore();

  context.save();
  context.beginPath();
  context.rect(head.width, 0, width - head.width, head.height);
  context.clip();
  context.font = SANS;
  context.textAlign = "center";
  const every = Math.ceil(20 / cell.width);
  for (let column = firstColumn; column <= lastColumn; column++) {
    const isAt = column === at?.column;
    const isFree = column % every === 0 && (at === undefined || Math.abs(column - at.column) >= every);
    if (!isAt && !isFree) continue;
    context.fillStyle = css(isAt ? colours.ink : colours.soft);
    context.fillText(String(column), head.width + (column + 0.5) * cell.width - left, head.height / 2);
  }
  context.restore();
}

interface Box {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

function drawCell(
  context: CanvasRenderingContext2D,
  picture: GridPicture,
  row: number,
  column: number,
  { x, y, width, height }: Box,
  colours: GridColours,
): void {
  const found = picture.cell(row, column);
  const ground = mixed(colours.ground, colours.heat, found?.value ?? 0);
  context.fillStyle = css(ground);
  context.fillRect(x, y, width - 1, height - 1);
  if (found && width > 30) {
    context.fillStyle = css(luminance(ground) > 0.3 ? DARK : BRIGHT);
    context.fillText(fitted(context, found.text, width - 6), x + width / 2, y + height / 2);
  }
  if (picture.isReached(row, column)) {
    context.fillStyle = css(colours.reach);
    context.fillRect(x, y + height - 4, width - 1, 3);
  }
  if (picture.isEdited(row, column)) stroke(context, { x, y, width, height }, colours.reach, []);
  if (picture.isChosen(row, column)) stroke(context, { x, y, width, height }, colours.accent, []);
  if (picture.isAimed(row, column)) stroke(context, { x, y, width, height }, colours.accent, [3, 2]);
}

function stroke(
  context: CanvasRenderingContext2D,
  { x, y, width, height }: Box,
  colour: Rgb,
  dash: number[],
): void {
  context.strokeStyle = css(colour);
  context.lineWidth = 2;
  context.setLineDash(dash);
  context.strokeRect(x + 1, y + 1, width - 3, height - 3);
  context.setLineDash([]);
}

/** As much of a text as has room. */
function fitted(context: CanvasRenderingContext2D, text: string, width: number): string {
  if (context.measureText(text).width <= width) return text;
  let most = Math.max(1, Math.floor(width / 6.7) - 1);
  while (most > 1 && context.measureText(`${text.slice(0, most)}…`).width > width) most--;
  return `${text.slice(0, most)}…`;
}

export function mixed(from: Rgb, to: Rgb, share: number): Rgb {
  const at = Math.max(0, Math.min(1, share));
  return [0, 1, 2].map((i) => Math.round(from[i]! + (to[i]! - from[i]!) * at)) as unknown as Rgb;
}

/** Relative, as WCAG 2 has it. */
export function luminance(colour: Rgb): number {
  const [red, green, blue] = colour.map((part) => {
    const value = part / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red! + 0.7152 * green! + 0.0722 * blue!;
}

export function css([red, green, blue]: Rgb): string {
  return `rgb(${red} ${green} ${blue})`;
}
