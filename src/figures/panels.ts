import type { RgbImage } from "../images/rgb.ts";
import type { PatchGrid } from "../model/prompt/prompt.ts";
import {
  CHARACTER_WIDTH,
  type Figure,
  fitLabel,
  LINE_HEIGHT,
  labelWidth,
  moved,
  type Shape,
  wrapLabel,
} from "./drawing.ts";
import { heatLegend } from "./heat.ts";

/** A drawing of its own within a figure, with a line of text above it. */
export interface Panel {
  readonly caption: string;
  readonly width: number;
  readonly height: number;
  readonly shapes: readonly Shape[];
}

const MARGIN = 10;
const GAP = 12;
/** A text may make a figure this wide; what is longer goes on in further lines, so many at most. */
const TEXT_WIDTH = 110 * CHARACTER_WIDTH;
const MOST_LINES = 4;

/** Lines of text, the legend of the heat colours, and below them the panels, in rows of about as many as there are rows. */
export function arrangePanels(
  lines: readonly string[],
  [from, to]: readonly [string, string],
  panels: readonly Panel[],
): Figure {
  const columns = Math.ceil(Math.sqrt(panels.length));
  const cellWidth = Math.max(...panels.map((panel) => panel.width));
  const cellHeight = Math.max(...panels.map((panel) => panel.height)) + LINE_HEIGHT + 3;
  const legend = heatLegend(from, to);
  const panelsWidth = columns * cellWidth + (columns - 1) * GAP;
  const textWidth = Math.min(TEXT_WIDTH, Math.max(0, ...lines.map(labelWidth)));
  const inner = Math.max(panelsWidth, legend.width, textWidth);

  const wrapped = lines.flatMap((text) => wrapLabel(text, inner, MOST_LINES));
  const shapes: Shape[] = wrapped.map((text, i) => label(text, MARGIN, MARGIN + i * (LINE_HEIGHT + 2)));
  const legendTop = MARGIN + wrapped.length * (LINE_HEIGHT + 2) + 4;
  shapes.push(...moved(legend.shapes, MARGIN, legendTop));
  const top = legendTop + LINE_HEIGHT + GAP;
  panels.forEach(({ caption, shapes: inside }, i) => {
    const x = MARGIN + (i % columns) * (cellWidth + GAP);
    const y = top + Math.floor(i / columns) * (cellHeight + GAP);
    shapes.push(label(fitLabel(caption, cellWidth), x, y), ...moved(inside, x, y + LINE_HEIGHT + 3));
  });
  const rows = Math.ceil(panels.length / columns);
  const height = top + rows * cellHeight + (rows - 1) * GAP + MARGIN;
  return { width: inner + 2 * MARGIN, height, shapes };
}

/** Where each patch lies over a picture of this size: `cell` of row and column, in reading order. */
export function patchCells<T>(
  { rows, columns }: PatchGrid,
  width: number,
  height: number,
  cell: (box: { x: number; y: number; width: number; height: number }, index: number) => T,
): T[] {
  return Array.from({ length: rows * columns }, (_, i) =>
    cell(
      {
        x: ((i % columns) * width) / columns,
        y: (Math.floor(i / columns) * height) / rows,
        width: width / columns,
        height: height / rows,
      },
      i,
    ),
  );
}

/** The picture itself, with lines between its patches. */
export function picturePanel(
  picture: RgbImage,
  grid: PatchGrid,
  size: { readonly width: number; readonly height: number },
): Panel {
  const shown: Shape = { kind: "picture", x: 0, y: 0, ...size, picture };
  return {
    caption: `the picture, ${grid.columns} x ${grid.rows} patches`,
    ...size,
    shapes: [shown, ...gridLines(grid, size.width, size.height)],
  };
}

function gridLines({ rows, columns }: PatchGrid, width: number, height: number): Shape[] {
  const line = { kind: "rectangle", fill: "#ffffff", opacity: 0.35 } as const;
  const across = Array.from({ length: rows - 1 }, (_, i) => ({
    ...line,
    x: 0,
    y: ((i + 1) * height) / rows - 0.5,
    width,
    height: 1,
  }));
  const down = Array.from({ length: columns - 1 }, (_, i) => ({
    ...line,
    x: ((i + 1) * width) / columns - 0.5,
    y: 0,
    width: 1,
    height,
  }));
  return [...across, ...down];
}

/** A picture without its colours, so that those of the heat over it stand out (Rec. 601 luma). */
export function toGrey({ width, height, data }: RgbImage): RgbImage {
  const grey = new Uint8Array(data.length);
  for (let at = 0; at < data.length; at += 3) {
    grey.fill(Math.round(0.299 * data[at]! + 0.587 * data[at + 1]! + 0.114 * data[at + 2]!), at, at + 3);
  }
  return { width, height, data: grey };
}

function label(text: string, x: number, y: number): Shape {
  return { kind: "label", x, y, text, colour: "#000000" };
}
