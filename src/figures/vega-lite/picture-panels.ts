import type { RgbImage } from "../../images/files/rgb.ts";
import type { PatchGrid } from "../../model/prompt/prompt.ts";
import { pngUri } from "../data-uri.ts";
import { frame, LETTER } from "./frame.ts";
import type { Spec } from "./groupings.ts";
import { textWidth, wrapText } from "./text-width.ts";

/** What lies over a patch. */
export interface PatchMark {
  /** From 0 to 1, or from -1 where the legend is diverging: the colour. */
  readonly shade: number;
  readonly tooltip: string;
  readonly word?: string;
}

/** A picture with something over each of its patches, in reading order. */
export interface PicturePanel {
  readonly caption: string;
  readonly patches: readonly PatchMark[];
}

export interface PicturePanels {
  readonly title: string;
  /** Below the title: model, prompt. */
  readonly lines: readonly string[];
  readonly picture: RgbImage;
  readonly grid: PatchGrid;
  readonly panels: readonly PicturePanel[];
  /** What the colours stand for, and what their two ends are. */
  readonly legend: {
    readonly title: string;
    readonly ends: readonly [string, string];
    /** Whether shades have a middle, 0. */
    readonly diverging?: boolean;
  };
}

/** A panel's longer side in pixels, about; with words, of a patch. */
const SIDE = 290;
const WORD_CELL = 58;
const WORD_SIZE = 10;
const CAPTION_SIZE = 11;
/** How much of a picture colours cover. */
const OPACITY = 0.7;
/** Pixels that lines of text take at least, however small the panels. */
const LEAST_WIDTH = 581;
const GAP = 22;

/** The picture as the model sees it, and the same without its colours below those of each panel. */
export function picturePanelsSpec(figure: PicturePanels): Spec {
  const { title, lines, picture, grid, panels, legend } = figure;
  const words = panels.some(({ patches }) => patches.some(({ word }) => word !== undefined));
  const cell = words ? WORD_CELL : Math.max(1, Math.round(SIDE / Math.max(grid.rows, grid.columns)));
  const size = { width: cell * grid.columns, height: cell * grid.rows };
  const columns = Math.ceil(Math.sqrt(panels.length + 1));
  const grey = pngUri(toGrey(picture));
  const caption = (text: string) => ({
    text: textWidth({ fontSize: CAPTION_SIZE }, text) <= size.width ? text : inLines(text, size.width),
    anchor: "start",
    fontSize: CAPTION_SIZE,
    fontWeight: "normal",
    limit: size.width,
    offset: 4,
  });
  const original = {
    ...size,
    title: caption(`the picture, ${grid.columns} x ${grid.rows} patches`),
    layer: [image(pngUri(picture), size), ...gridLines(grid)],
  };
  const heated = panels.map(({ caption: text, patches }) => ({
    ...size,
    title: caption(text),
    layer: [image(grey, size), ...heat(patches, grid, legend, words)],
  }));
  return {
    ...frame(title, lines, Math.max(LEAST_WIDTH, columns * (size.width + GAP))),
    columns,
    spacing: GAP,
    concat: [original, ...heated],
  };
}

/** For pictures that are narrower than their captions. */
function inLines(text: string, width: number): string[] {
  return wrapText(text, Math.floor(width / LETTER), Number.POSITIVE_INFINITY);
}

/** One row of data, so that marks without fields are drawn once. */
const ONCE = { values: [{}] };

function image(url: string, { width, height }: { width: number; height: number }): Spec {
  const place = { x: width / 2, y: height / 2, width, height, aspect: false };
  return { data: ONCE, mark: { type: "image", url, ...place, smooth: false } };
}

/** Columns and rows of patches as coordinates. */
function axes({ rows, columns }: PatchGrid) {
  const axis = (field: string, domain: readonly [number, number]) => ({
    field,
    type: "quantitative",
    axis: null,
    scale: { domain, nice: false, zero: false },
  });
  return { x: (field: string) => axis(field, [0, columns]), y: (field: string) => axis(field, [rows, 0]) };
}

function gridLines(grid: PatchGrid): Spec[] {
  const { x, y } = axes(grid);
  const mark = { type: "rule", color: "#ffffff", opacity: 0.35 };
  const inner = (count: number) => Array.from({ length: count - 1 }, (_, i) => ({ at: i + 1 }));
  return [
    { data: { values: inner(grid.columns) }, mark, encoding: { x: x("at") } },
    { data: { values: inner(grid.rows) }, mark, encoding: { y: y("at") } },
  ];
}

function heat(
  patches: readonly PatchMark[],
  grid: PatchGrid,
  { title, ends: [from, to], diverging = false }: PicturePanels["legend"],
  words: boolean,
): Spec[] {
  const { x, y } = axes(grid);
  const values = patches.map((patch, i) => {
    const [row, column] = [Math.floor(i / grid.columns), i % grid.columns];
    return { ...patch, left: column, right: column + 1, top: row, bottom: row + 1 };
  });
  const data = { values };
  const box = { x: x("left"), x2: { field: "right" }, y: y("top"), y2: { field: "bottom" } };
  const color = {
    field: "shade",
    type: "quantitative",
    scale: diverging
      ? { scheme: "redblue", reverse: true, domain: [-1, 1] }
      : { scheme: "inferno", domain: [0, 1] },
    legend: {
      title,
      values: [diverging ? -1 : 0, 1],
      labelExpr: `datum.value < 1 ? ${JSON.stringify(from)} : ${JSON.stringify(to)}`,
      gradientLength: 120,
    },
  };
  const coloured = {
    data,
    mark: { type: "rect", aria: true, opacity: OPACITY },
    encoding: { ...box, color, description: { field: "tooltip" } },
  };
  if (!words) return [coloured];
  const strip = (WORD_SIZE + 4) / WORD_CELL;
  const written = {
    data,
    transform: [
      { calculate: "datum.left + 0.5", as: "middle" },
      { calculate: `datum.bottom - ${strip}`, as: "stripTop" },
      { calculate: `datum.bottom - ${strip / 2}`, as: "stripMiddle" },
    ],
    layer: [
      {
        mark: { type: "rect", color: "#ffffff", opacity: 0.9 },
        encoding: { ...box, y: y("stripTop") },
      },
      {
        mark: { type: "text", fontSize: WORD_SIZE, limit: WORD_CELL - 4, color: "#000000" },
        encoding: { x: x("middle"), y: y("stripMiddle"), text: { field: "word" } },
      },
      // Over the rest, and invisible: it is there for the pointer.
      {
        mark: { type: "rect", aria: true, color: "#ffffff", opacity: 0 },
        encoding: { ...box, description: { field: "tooltip" } },
      },
    ],
  };
  return [{ ...coloured, mark: { ...coloured.mark, aria: false } }, written];
}

/** A picture without its colours, so that those of the heat over it stand out (Rec. 601 luma). */
function toGrey({ width, height, data }: RgbImage): RgbImage {
  const grey = new Uint8Array(data.length);
  for (let at = 0; at < data.length; at += 3) {
    grey.fill(Math.round(0.299 * data[at]! + 0.587 * data[at + 1]! + 0.114 * data[at + 2]!), at, at + 3);
  }
  return { width, height, data: grey };
}
