import { platform } from "#platform";
import { checkPixelCount, DEFAULT_MAX_PIXELS, type RgbImage } from "../images/rgb.ts";
import {
  ASCENT,
  type Colour,
  channelsOf,
  type Figure,
  FONT_SIZE,
  type Label,
  LINE_HEIGHT,
  labelWidth,
  type Picture,
  type Rectangle,
} from "./drawing.ts";

/** From this many units on, a figure is large enough to be drawn at a pixel each. */
const LARGE = 2 ** 20;
/** Pixels of which the text is drawn at once; bounds the memory. */
const TEXT_PIXELS = 2 ** 22;

/**
 * A figure as pixels, for `encodePng`: two a unit, or one where it is large. Text is in DejaVu Sans Mono in Node (characters
 * that it lacks in a font of the machine), in browsers in their own fixed-width face. Throws ImageError beyond
 * DEFAULT_MAX_PIXELS, and for text where a browser has no OffscreenCanvas.
 */
export function toPixels(figure: Figure): RgbImage {
  const scale = figure.width * figure.height < LARGE ? 2 : 1;
  const canvas = new Canvas(figure.width, figure.height, scale);
  // Drawing text is slow to begin with, so labels wait until something lies over one of them.
  let waiting: Label[] = [];
  const draw = () => {
    canvas.labels(waiting);
    waiting = [];
  };
  for (const shape of figure.shapes) {
    if (shape.kind === "label") waiting.push(shape);
    else if (shape.kind === "picture" || shape.opacity !== 0) {
      if (waiting.some((label) => overlap(label, shape))) draw();
      if (shape.kind === "picture") canvas.picture(shape);
      else canvas.fill(shape);
    }
  }
  draw();
  return canvas.image;
}

function overlap({ x, y, text }: Label, shape: Rectangle | Picture): boolean {
  const across = shape.x < x + labelWidth(text) && x < shape.x + shape.width;
  return across && shape.y < y + LINE_HEIGHT && y < shape.y + shape.height;
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

  fill({ x, y, width, height, fill, opacity = 1 }: Rectangle): void {
    const channels = channelsOf(fill);
    this.#each(x, y, width, height, (at) => this.#blend(at, channels, opacity));
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

  labels(labels: readonly Label[]): void {
    const { width, height } = this.image;
    const rows = Math.max(1, Math.floor(TEXT_PIXELS / width));
    for (const colour of new Set(labels.map((label) => label.colour))) {
      const lines = labels
        .filter((label) => label.colour === colour)
        .map(({ x, y, text }) => ({ x: x * this.#scale, y: (y + ASCENT) * this.#scale, text }));
      for (let top = 0; top < height; top += rows) {
        this.#text(lines, colour, top, Math.min(rows, height - top));
      }
    }
  }

  /** What of the lines of text lies in `height` rows from `top`. */
  #text(
    lines: readonly { x: number; y: number; text: string }[],
    colour: Colour,
    top: number,
    height: number,
  ): void {
    const reach = 2 * LINE_HEIGHT * this.#scale;
    const here = lines
      .filter(({ y }) => y > top - reach && y < top + height + reach)
      .map((line) => ({ ...line, y: line.y - top }));
    if (here.length === 0) return;
    const { width } = this.image;
    const covered = platform.drawText(here, { width, height, fontSize: FONT_SIZE * this.#scale });
    const channels = channelsOf(colour);
    covered.forEach((cover, i) => {
      if (cover > 0) this.#blend((top * width + i) * 3, channels, cover / 255);
    });
  }

  #blend(at: number, channels: readonly number[], opacity: number): void {
    for (let c = 0; c < 3; c++) {
      const below = this.image.data[at + c]!;
      this.image.data[at + c] = Math.round(below + (channels[c]! - below) * opacity);
    }
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
