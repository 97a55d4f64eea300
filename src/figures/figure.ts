import { platform } from "#platform";
import { aNumber, aString, checkArgument, checkOptions, type Expected } from "../arguments.ts";
import { FileError } from "../errors.ts";
import { INSPECT } from "../inspect.ts";
import { nearest } from "../nearest.ts";
import { toPage } from "./figure-page.ts";
import type { Spec } from "./vega-lite/groupings.ts";
import { drawSvg } from "./vega-lite/svg.ts";

/** What Jupyter kernels in JavaScript (Deno's) ask an object for. */
const JUPYTER: unique symbol = Symbol.for("Jupyter.display") as never;

/** What a figure is made of. */
export interface Drawing {
  readonly title: string;
  readonly caption: string;
  /** What it shows, for a terminal. */
  readonly text: string;
  /** A specification of Vega-Lite; made when it is drawn. */
  readonly spec: () => Spec;
}

/** Pixels of a PNG for one of the SVG. */
const ZOOM = 2;
const aZoom: Expected = {
  words: "a number above 0",
  holds: (zoom) => aNumber.holds(zoom) && (zoom as number) > 0 && Number.isFinite(zoom),
};

/**
 * A picture of a result: an SVG document, a PNG, a page, or text, as wanted. In a notebook it shows itself; `show` shows it
 * elsewhere. Drawn by Vega-Lite, which is loaded with the first figure.
 */
export class Figure {
  readonly title: string;
  /** What is seen and what its marks are; empty where the picture says it all. */
  readonly caption: string;
  readonly #drawing: Drawing;
  #svg: Promise<string> | undefined;

  constructor(drawing: Drawing) {
    this.title = drawing.title;
    this.caption = drawing.caption;
    this.#drawing = drawing;
  }

  /** The specification of Vega-Lite that is drawn, to change and to draw elsewhere. */
  get spec(): Readonly<Record<string, unknown>> {
    return this.#drawing.spec();
  }

  /** An SVG document that needs no other file. */
  svg(): Promise<string> {
    // What failed, as where Vega cannot be fetched at the moment, is tried again.
    this.#svg ??= drawSvg(this.#drawing.spec(), this.title, this.caption).catch((error: unknown) => {
      this.#svg = undefined;
      throw error;
    });
    return this.#svg;
  }

  /**
   * A PNG with `zoom` (default 2) pixels for each of the SVG. In Node its letters are those of DejaVu, on every machine, and
   * what these lack in the machine's own fonts. Throws ImageError where there is nothing to draw with, such as in a
   * Worker, and where it would be too large.
   */
  async png(options: { zoom?: number } = {}): Promise<Uint8Array<ArrayBuffer>> {
    checkOptions("figure.png", options, { zoom: aZoom });
    const { zoom = ZOOM } = options;
    return platform.svgToPng(await this.svg(), zoom);
  }

  /** A page that needs no other file and no network. */
  async html(): Promise<string> {
    return toPage(this.title, await this.svg(), this.caption);
  }

  /**
   * Writes the figure to a file; its name says what as: `.svg`, `.png` or `.html`. In a browser it is downloaded. Throws
   * FileError for other names, and where the file cannot be written.
   */
  async save(path: string): Promise<void> {
    checkArgument("figure.save", "path", path, aString);
    await platform.saveFile(path, await this.as(formatOf(path)));
  }

  /** The figure as `svg` or `html`, which are text, or as the bytes of a `png`. */
  as(format: FigureFormat): Promise<string | Uint8Array<ArrayBuffer>> {
    switch (format) {
      case "svg":
        return this.svg();
      case "png":
        return this.png();
      case "html":
        return this.html();
    }
  }

  /** What the figure shows, as text. */
  toString(): string {
    return this.#drawing.text;
  }

  [INSPECT](): string {
    return this.toString();
  }

  async [JUPYTER](): Promise<Record<string, string>> {
    return { "image/svg+xml": await this.svg(), "text/plain": this.toString() };
  }
}

const FIGURE_FORMATS = ["svg", "png", "html"] as const;
export type FigureFormat = (typeof FIGURE_FORMATS)[number];

/** By the end of a file's name. Throws FileError. */
export function formatOf(path: string): FigureFormat {
  const end = /\.([^.\\/]*)[\\/]*$/.exec(path)?.[1]?.toLowerCase();
  const format = FIGURE_FORMATS.find((known) => known === end);
  if (format) return format;
  const names = FIGURE_FORMATS.map((known) => `.${known}`).join(", ");
  const near = end === undefined ? "" : `; the nearest to ".${end}" is ".${nearest(end, FIGURE_FORMATS)}"`;
  throw new FileError(`${path}: expected a name that ends in one of ${names}${near}`);
}
