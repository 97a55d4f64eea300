import { checkPixelCount, DEFAULT_MAX_PIXELS, type RgbImage } from "../images/rgb.ts";
import { type Colour, channelsOf, type Figure, type Label, type Picture } from "./figure.ts";
import { GLYPH_WIDTH, glyphOf } from "./glyphs.ts";

/** From this many units on, a figure is large enough to be drawn at a pixel each. */
const LARGE = 2 ** 20;

/**
 * A figure as pixels, for `encodePng`: two a unit, or one where it is large. Its text is ASCII and unaccented Latin
 * letters; an empty box stands for other characters. Throws ImageError beyond DEFAULT_MAX_PIXELS.
 */
export function toPixels(figure: Figure): RgbImage {
  const scale = figure.width * figure.height < LARGE ? 2 : 1;
  const canvas = new Canvas(figure.width, figure.height, scale);
  for (const shape of figure.shapes) {
    if (shape.kind === "picture") canvas.picture(shape);
    else if (shape.kind === "label") canvas.label(shape);
    else canvas.fill(shape.x, shape.y, shape.width, shape.height, shape.fill, shape.opacity);
  }
  return canvas.image;
}

class Canvas {
  readonly image: RgbImage;
  readonly #scale: number;

  constructor(width: number, height: number, scale: number) {
    const size = { width: Math.ceil(width * scale), height: Math.ceil(height * scale) };
    checkPixelCount(size.width, size.height, DEFAULT_MAX_PIXELS);
    this.image = { ...size, data: new Uint8Array(size.width * size.height * 3).fill(255) };
    this.#scale = scale;
  }

  fill(x: number, y: number, width: number, height: number, colour: Colour, opacity = 1): void {
    const channels = channelsOf(colour);
    this.#each(x, y, width, height, (at) => {
      for (let c = 0; c < 3; c++) {
        const below = this.image.data[at + c]!;
        this.image.data[at + c] = Math.round(below + (channels[c]! - below) * opacity);
      }
    });
  }

  /** Each pixel of the canvas shows the nearest one of the picture. */
  picture({ x, y, width, height, picture }: Picture): void {
    this.#each(x, y, width, height, (at, across, down) => {
      const column = Math.floor(across * picture.width);
      const row = Math.floor(down * picture.height);
      const from = (row * picture.width + column) * 3;
      for (let c = 0; c < 3; c++) this.image.data[at + c] = picture.data[from + c]!;
    });
  }

  label({ x, y, text, colour }: Label): void {
    [...text].forEach((character, i) => {
      for (const [across, down] of glyphOf(character)) {
        this.fill(x + i * GLYPH_WIDTH + across, y + down, 1, 1, colour);
      }
    });
  }

  /** Calls back with the place in `data` of each pixel of a rectangle, and with how far across and down it lies. */
  #each(
    x: number,
    y: number,
    width: number,
    height: number,
    draw: (at: number, across: number, down: number) => void,
  ): void {
    const [left, right] = [Math.round(x * this.#scale), Math.round((x + width) * this.#scale)];
    const [top, bottom] = [Math.round(y * this.#scale), Math.round((y + height) * this.#scale)];
    const { width: columns, height: rows } = this.image;
    for (let row = Math.max(top, 0); row < Math.min(bottom, rows); row++) {
      for (let column = Math.max(left, 0); column < Math.min(right, columns); column++) {
        const across = (column + 0.5 - left) / (right - left);
        draw((row * columns + column) * 3, across, (row + 0.5 - top) / (bottom - top));
      }
    }
  }
}
