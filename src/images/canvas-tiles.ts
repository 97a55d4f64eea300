import { crop } from "./crop.ts";
import type { RgbImage } from "./files/rgb.ts";
import type { Size } from "./processors/processor-config.ts";
import { type ResizeFilter, resize } from "./resize.ts";
import type { TileGrid } from "./tile-grid.ts";

/** How pictures are laid on a canvas of square tiles, in its upper left corner, with black around them (Llama 3.2 Vision). */
export interface CanvasSettings {
  /** Of a tile, in pixels. */
  readonly side: number;
  /** Tiles that a canvas has at most. */
  readonly most: number;
}

/** All canvases of at most so many tiles, in the order of their ids: the first has id 1. */
export function canvasesOf(most: number): TileGrid[] {
  const canvases: TileGrid[] = [];
  for (let rows = 1; rows <= most; rows++) {
    for (let columns = 1; rows * columns <= most; columns++) canvases.push({ rows, columns });
  }
  return canvases;
}

/**
 * The canvas that a picture is laid on: the one that it is enlarged least to fill, or where all are smaller, reduced least; of
 * several the smallest. transformers' `get_optimal_tiled_canvas`, in f64 as Python has it.
 */
export function bestCanvas({ width, height }: Size, { side, most }: CanvasSettings): TileGrid {
  const scaled = canvasesOf(most).map((canvas) => ({
    canvas,
    scale: Math.min((canvas.rows * side) / height, (canvas.columns * side) / width),
  }));
  const enlarging = scaled.map(({ scale }) => scale).filter((scale) => scale >= 1);
  const best = enlarging.length > 0 ? Math.min(...enlarging) : Math.max(...scaled.map(({ scale }) => scale));
  const area = ({ rows, columns }: TileGrid) => rows * columns;
  return scaled
    .filter(({ scale }) => scale === best)
    .map(({ canvas }) => canvas)
    .reduce((least, canvas) => (area(canvas) < area(least) ? canvas : least));
}

/** The size of the picture on its canvas: transformers' `get_image_size_fit_to_canvas`. */
function sizeOn({ width, height }: Size, { rows, columns }: TileGrid, side: number): Size {
  const within = (length: number, most: number) => Math.max(side, Math.min(length, most));
  const most = { width: within(width, columns * side), height: within(height, rows * side) };
  const [byWidth, byHeight] = [most.width / width, most.height / height];
  return byWidth < byHeight
    ? { width: most.width, height: Math.min(Math.floor(height * byWidth) || 1, most.height) }
    : { width: Math.min(Math.floor(width * byHeight) || 1, most.width), height: most.height };
}

/** The canvas with the picture on it. */
export function canvasView(image: RgbImage, settings: CanvasSettings, filter: ResizeFilter): RgbImage {
  const { side } = settings;
  const canvas = bestCanvas(image, settings);
  const { width, height } = sizeOn(image, canvas, side);
  const fitted = resize(image, width, height, filter);
  return crop(fitted, { left: 0, top: 0, width: canvas.columns * side, height: canvas.rows * side });
}

/** The tiles of the canvas, row by row. */
export function canvasTiles(image: RgbImage, settings: CanvasSettings, filter: ResizeFilter): RgbImage[] {
  const { side } = settings;
  const view = canvasView(image, settings, filter);
  const columns = view.width / side;
  return Array.from({ length: columns * (view.height / side) }, (_, i) => {
    const [row, column] = [Math.floor(i / columns), i % columns];
    return crop(view, { left: column * side, top: row * side, width: side, height: side });
  });
}
