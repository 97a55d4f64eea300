import type { RgbImage } from "../images/rgb.ts";
import { GLYPH_WIDTH } from "./glyphs.ts";

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

/** One line of text in a fixed-width face, GLYPH_WIDTH units a character, from its top left corner. */
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
  return [...text].length * GLYPH_WIDTH;
}

/** Cuts a text to a width; what was cut ends in "…". */
export function fitLabel(text: string, width: number): string {
  const characters = [...text];
  const room = Math.max(1, Math.floor(width / GLYPH_WIDTH));
  return characters.length <= room ? text : `${characters.slice(0, room - 1).join("")}…`;
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
