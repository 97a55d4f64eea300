import type { RgbImage } from "../images/rgb.ts";

/** Units that a character of a label is wide, and a line of them high. Wide characters (Chinese, pictograms) count twice. */
export const CHARACTER_WIDTH = 6;
export const LINE_HEIGHT = 11;
/** Units of an em, at which DejaVu Sans Mono's characters are so wide; of other fixed-width faces about. */
export const FONT_SIZE = CHARACTER_WIDTH / 0.602;
/** From the top of a line to the foot of its letters. */
export const ASCENT = 8;

/** `#rrggbb` */
export type Colour = `#${string}`;

interface Placed {
  readonly x: number;
  readonly y: number;
}

export interface Rectangle extends Placed {
  readonly kind: "rectangle";
  readonly width: number;
  readonly height: number;
  readonly fill: Colour;
  /** From 0 (default: 1). */
  readonly opacity?: number;
  /** Shown by viewers of SVG and HTML while the pointer is over it. */
  readonly tooltip?: string;
}

export interface Picture extends Placed {
  readonly kind: "picture";
  readonly width: number;
  readonly height: number;
  readonly picture: RgbImage;
}

/** One line of text in a fixed-width face, from its top left corner. */
export interface Label extends Placed {
  readonly kind: "label";
  readonly text: string;
  readonly colour: Colour;
}

export type Shape = Rectangle | Picture | Label;

/** A drawing on white, in units of about a pixel; later shapes lie over earlier ones. */
export interface Figure {
  readonly width: number;
  readonly height: number;
  readonly shapes: readonly Shape[];
}

/** Width of a line of text. */
export function labelWidth(text: string): number {
  return [...text].reduce((width, character) => width + characterWidth(character), 0);
}

/** Cuts a text to a width; what was cut ends in "…". */
export function fitLabel(text: string, width: number): string {
  if (labelWidth(text) <= width) return text;
  return `${beginning(text, width - CHARACTER_WIDTH)}…`;
}

/** A text in lines of this width, broken at blanks where there are any; what more lines than `most` would take is cut. */
export function wrapLabel(text: string, width: number, most: number): string[] {
  const lines: string[] = [];
  let rest = text;
  while (labelWidth(rest) > width && lines.length < most - 1) {
    const room = beginning(rest, width + CHARACTER_WIDTH); // with the blank that it may break at
    const blank = room.lastIndexOf(" ");
    const line = blank > 0 ? room.slice(0, blank) : beginning(rest, width) || [...rest][0]!;
    lines.push(line);
    rest = rest.slice(line.length).trimStart();
  }
  return [...lines, fitLabel(rest, width)];
}

/** As many characters as fit. */
function beginning(text: string, width: number): string {
  let room = width;
  let fitted = "";
  for (const character of text) {
    room -= characterWidth(character);
    if (room < 0) break;
    fitted += character;
  }
  return fitted;
}

const WIDE =
  /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{1f000}-\u{3ffff}]/u;

function characterWidth(character: string): number {
  return WIDE.test(character) ? 2 * CHARACTER_WIDTH : CHARACTER_WIDTH;
}

/** The same shapes, elsewhere. */
export function moved(shapes: readonly Shape[], x: number, y: number): Shape[] {
  return shapes.map((shape) => ({ ...shape, x: shape.x + x, y: shape.y + y }));
}

/** The red, green and blue of a colour, 0 to 255. */
export function channelsOf(colour: Colour): [number, number, number] {
  const value = Number.parseInt(colour.slice(1), 16);
  return [value >> 16, (value >> 8) & 255, value & 255];
}
