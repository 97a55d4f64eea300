import { crop } from "./crop.ts";
import type { RgbImage } from "./files/rgb.ts";
import type { Size } from "./processors/processor-config.ts";
import { type ResizeFilter, resize } from "./resize.ts";

/**
 * How a picture is squeezed into a grid of square tiles, each of which is a picture to the model, as is the whole, squeezed into
 * one tile, which comes last.
 */
export type TileGridSettings = MultiplesGrid | RatioGrid;

interface Tiled {
  /** Of a square tile, in pixels. */
  readonly side: number;
  /** Whether pictures are cut at all; where not, the whole is all there is. */
  readonly splits: boolean;
}

/** The sides go up to the next multiples of a tile's (Idefics3). */
export interface MultiplesGrid extends Tiled {
  readonly by: "multiples";
  /** What the picture is made before that: of a longest edge, or of a size. */
  readonly first?: Size | { readonly longestEdge: number };
}

/** The grid of the nearest proportions, of those that have as many tiles (InternVL). */
export interface RatioGrid extends Tiled {
  readonly by: "ratio";
  readonly fewest: number;
  readonly most: number;
}

/** Tiles below and beside each other. */
export interface TileGrid {
  readonly rows: number;
  readonly columns: number;
}

/** No picture becomes longer than this (Idefics3's MAX_IMAGE_SIZE). */
const LONGEST = 4096;

/** The grid that a picture of this size is cut into; undefined where the whole is all there is. */
export function tileGrid(size: Size, settings: TileGridSettings): TileGrid | undefined {
  if (!settings.splits) return undefined;
  const grid = settings.by === "ratio" ? nearestGrid(size, settings) : multiplesGrid(size, settings);
  return grid.rows * grid.columns > 1 ? grid : undefined;
}

/** The 8-bit squares that the model gets to see of a picture: the tiles row by row, then the whole. */
export function gridViews(image: RgbImage, settings: TileGridSettings, filter: ResizeFilter): RgbImage[] {
  const { side } = settings;
  const start = startOf(image, settings, filter);
  const grid = tileGrid(image, settings);
  if (!grid) return [resize(start, side, side, filter)];
  const { rows, columns } = grid;
  const fitted = resize(start, columns * side, rows * side, filter);
  const tiles = Array.from({ length: rows * columns }, (_, i) => {
    const [row, column] = [Math.floor(i / columns), i % columns];
    return crop(fitted, { left: column * side, top: row * side, width: side, height: side });
  });
  return [...tiles, resize(settings.by === "multiples" ? fitted : start, side, side, filter)];
}

/** The whole picture as the model sees it: the last of {@link gridViews}. */
export function wholeView(image: RgbImage, settings: TileGridSettings, filter: ResizeFilter): RgbImage {
  const { side } = settings;
  const start = startOf(image, settings, filter);
  const grid = settings.by === "multiples" && tileGrid(image, settings);
  // Each step rounds, so that it shows whether the tiles were made first.
  const fitted = grid ? resize(start, grid.columns * side, grid.rows * side, filter) : start;
  return resize(fitted, side, side, filter);
}

/** What the grid is made of. */
function startOf(image: RgbImage, settings: TileGridSettings, filter: ResizeFilter): RgbImage {
  if (settings.by === "ratio" || !settings.first) return image;
  const { width, height } = firstSize(image, settings.first);
  return resize(image, width, height, filter);
}

function firstSize(size: Size, to: NonNullable<MultiplesGrid["first"]>): Size {
  return "longestEdge" in to ? below(LONGEST, scaled(size, to.longestEdge)) : to;
}

/** With a longest edge of so many pixels; the other becomes even. In f64 as Python has it. */
function scaled({ width, height }: Size, edge: number): Size {
  const ratio = width / height;
  const even = (length: number) => Math.max(1, length + (length % 2));
  return width >= height
    ? { width: edge, height: even(Math.trunc(edge / ratio)) }
    : { width: even(Math.trunc(edge * ratio)), height: edge };
}

function below(most: number, { width, height }: Size): Size {
  const ratio = width / height;
  if (Math.max(width, height) <= most) return { width, height };
  return width >= height
    ? { width: most, height: Math.max(1, Math.trunc(most / ratio)) }
    : { width: Math.max(1, Math.trunc(most * ratio)), height: most };
}

function multiplesGrid(size: Size, { side, first }: MultiplesGrid): TileGrid {
  const { width, height } = first ? firstSize(size, first) : size;
  const ratio = width / height;
  const tiles = (length: number) => Math.ceil(length / side);
  if (width >= height) {
    const columns = tiles(width);
    return { columns, rows: tiles(Math.trunc((columns * side) / ratio)) };
  }
  const rows = tiles(height);
  return { rows, columns: tiles(Math.trunc(rows * side * ratio)) };
}

/** The first of the nearest; a later one of the same proportions where the picture is more than half as large. */
function nearestGrid({ width, height }: Size, { side, fewest, most }: RatioGrid): TileGrid {
  let best: TileGrid = { rows: 1, columns: 1 };
  let distance = Number.POSITIVE_INFINITY;
  for (const grid of gridsOf(fewest, most)) {
    const own = Math.abs(width / height - grid.columns / grid.rows);
    const isLarge = width * height > 0.5 * side * side * grid.columns * grid.rows;
    if (own < distance || (own === distance && isLarge)) best = grid;
    distance = Math.min(own, distance);
  }
  return best;
}

/** By their number of tiles; of those with as many, narrow ones first. */
function gridsOf(fewest: number, most: number): TileGrid[] {
  const grids: TileGrid[] = [];
  for (let columns = 1; columns <= most; columns++) {
    for (let rows = 1; rows * columns <= most; rows++) {
      if (rows * columns >= fewest) grids.push({ rows, columns });
    }
  }
  return grids.sort((a, b) => a.rows * a.columns - b.rows * b.columns);
}
