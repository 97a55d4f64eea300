import { canvasTiles, canvasView } from "./canvas-tiles.ts";
import { centred, crop } from "./crop.ts";
import {
  checkPixelCount,
  checkRgbImage,
  DEFAULT_MAX_PIXELS,
  type RgbImage,
  withoutAlpha,
} from "./files/rgb.ts";
import { sizeOfMostPatches } from "./most-patches.ts";
import type { ProcessorSettings, ResizeTarget, Size } from "./processors/processor-config.ts";
import { quarterAreas } from "./quarters.ts";
import { resize } from "./resize.ts";
import { roundHalfToEven, smartResize } from "./smart-resize.ts";
import { gridViews, type TileGrid, tileGrid, wholeView } from "./tile-grid.ts";
import { tileViews } from "./tiles.ts";

/** A picture as a vision tower takes it: float32, planes of red, green and blue, row by row. */
export interface PixelValues {
  /** Where there are tiles, one after the other. */
  readonly data: Float32Array<ArrayBuffer>;
  /** Of the picture, or of a tile; where tiles differ, of the last one. */
  readonly shape: readonly [channels: 3, height: number, width: number];
  readonly tiling?: Tiling;
}

/** How a picture was cut into tiles. */
export interface Tiling {
  /**
   * How many there are, the whole picture included: squeezed into the first, of a `grid` into the last, or behind its quarters as it
   * is (Idefics 2).
   */
  readonly count: number;
  /** Of each tile in pixels, where they differ. */
  readonly sizes?: readonly Size[];
  /** The size that the picture had, in pixels; 0 where there is none, and no tile (a batch that transformers has filled up). */
  readonly width: number;
  readonly height: number;
  /** Where the tiles stand by themselves: how they lie, the whole picture behind them. Absent where that is all there is. */
  readonly grid?: TileGrid;
}

/**
 * Turns a picture into the `pixel_values` that transformers' PIL image processors compute from it: `modelView` (or each of
 * its tiles), then rescaled and normalised in float32. Throws ImageError where `modelView` does.
 */
export function preprocess(image: RgbImage, settings: ProcessorSettings): PixelValues {
  if (settings.grid) return gridPixels(image, settings);
  if (settings.quarters) return quarterPixels(image, settings);
  if (settings.canvas) return canvasPixels(image, settings);
  if (!settings.tiles || image.whole) {
    const { width, height, ...view } = modelView(image, settings);
    return { data: normalised([view.data], settings), shape: [3, height, width] };
  }
  checkRgbImage("preprocess", image);
  const { side } = settings.tiles;
  const views = tileViews(image, settings.tiles, settings.resize!.filter);
  const tiling = { count: views.length, width: image.width, height: image.height };
  const data = normalised(
    views.map((view) => view.data),
    settings,
  );
  return { data, shape: [3, side, side], tiling };
}

function gridPixels(image: RgbImage, settings: ProcessorSettings): PixelValues {
  checkRgbImage("preprocess", image);
  const { grid: own, resize } = settings;
  const views = gridViews(image, own!, resize!.filter);
  const data = normalised(
    views.map((view) => view.data),
    settings,
  );
  const grid = tileGrid(image, own!);
  const tiling = { count: views.length, width: image.width, height: image.height, ...(grid && { grid }) };
  return { data, shape: [3, own!.side, own!.side], tiling };
}

function canvasPixels(image: RgbImage, settings: ProcessorSettings): PixelValues {
  checkRgbImage("preprocess", image);
  const { side } = settings.canvas!;
  const views = canvasTiles(image, settings.canvas!, settings.resize!.filter);
  const data = normalised(
    views.map((view) => view.data),
    settings,
  );
  const tiling = { count: views.length, width: image.width, height: image.height };
  return { data, shape: [3, side, side], tiling };
}

/** The quarters of a picture and the picture, each as if it were alone. */
function quarterPixels(picture: RgbImage, settings: ProcessorSettings): PixelValues {
  checkRgbImage("preprocess", picture);
  const image = settings.opaque ? withoutAlpha(picture) : picture;
  const views = quarterAreas(image).map((area) => modelView(crop(image, area), settings));
  const sizes = views.map(({ width, height }) => ({ width, height }));
  const whole = sizes.at(-1)!;
  const data = normalised(
    views.map((view) => view.data),
    settings,
  );
  const tiling = { count: views.length, width: image.width, height: image.height, sizes };
  return { data, shape: [3, whole.height, whole.width], tiling };
}

/** The sizes in pixels of what {@link preprocess} makes of a picture of this size: of its quarters and itself, or of itself alone. */
export function pieceSizes(size: Size, settings: ProcessorSettings): Size[] {
  return (settings.quarters ? quarterAreas(size) : [size]).map((part) => viewSize(part, settings));
}

/** Planes of red, green and blue of each of these pictures, one after the other. */
function normalised(views: readonly Uint8Array[], settings: ProcessorSettings): Float32Array<ArrayBuffer> {
  const channels = [0, 1, 2].map((c) => channelValues(settings, c));
  const data = new Float32Array(views.reduce((sum, view) => sum + view.length, 0));
  let start = 0;
  for (const view of views) {
    const plane = view.length / 3;
    for (const [c, values] of channels.entries()) {
      for (let i = 0; i < plane; i++) data[start + i] = values[view[i * 3 + c]!]!;
      start += plane;
    }
  }
  return data;
}

/**
 * The 8-bit picture that the model gets to see: padded, resized and cropped as the settings say, not yet normalised.
 * Patches of the vision tower lie over this picture, so it is what attention is drawn on. Of a picture that is cut into
 * tiles it is the whole.
 *
 * A crop computes only the pixels that it keeps, so that very long pictures cost no more than others. Throws ImageError
 * when an uncropped result would have more than DEFAULT_MAX_PIXELS, and for what is no RgbImage.
 */
export function modelView(picture: RgbImage, settings: ProcessorSettings): RgbImage {
  checkRgbImage("modelView", picture);
  const image = settings.opaque ? withoutAlpha(picture) : picture;
  if (settings.canvas) return canvasView(image, settings.canvas, settings.resize!.filter);
  if (settings.grid) return wholeView(image, settings.grid, settings.resize!.filter);
  const pads = settings.padColour && (!settings.tiles || image.whole);
  const square = pads ? padToSquare(image, settings.padColour!) : image;
  const full = settings.resize ? resizedSize(square, settings.resize.to) : square;
  const area = settings.crop
    ? centred(full, settings.crop.width, settings.crop.height)
    : wholeOf(settings.fillPatches ? filledSize(full, settings.fillPatches) : full);
  checkPixelCount(area.width, area.height, DEFAULT_MAX_PIXELS);
  if (!settings.resize) return crop(square, area, settings.fillPatches?.colour);

  const left = Math.max(area.left, 0);
  const top = Math.max(area.top, 0);
  const width = Math.min(area.left + area.width, full.width) - left;
  const height = Math.min(area.top + area.height, full.height) - top;
  const visible = resize(square, full.width, full.height, settings.resize.filter, {
    left,
    top,
    width,
    height,
  });
  const own = { ...area, left: area.left - left, top: area.top - top };
  return crop(visible, own, settings.fillPatches?.colour);
}

/** Width and height of the {@link modelView} of a picture of this size. Throws ImageError for one that cannot be taken. */
export function viewSize(
  { width, height }: Size,
  { padColour, resize, crop, fillPatches }: ProcessorSettings,
): Size {
  const side = Math.max(width, height);
  const square = padColour ? { width: side, height: side } : { width, height };
  const full = resize ? resizedSize(square, resize.to) : square;
  return crop ?? (fillPatches ? filledSize(full, fillPatches) : full);
}

/** With as many pixels to the right and below as make the last patches whole, as far as there is room. */
function filledSize(
  { width, height }: Size,
  { side, most }: NonNullable<ProcessorSettings["fillPatches"]>,
): Size {
  const filled = (length: number, room: number) => Math.min(room, Math.ceil(length / side) * side);
  return { width: filled(width, most.width), height: filled(height, most.height) };
}

function wholeOf(size: Size) {
  return { left: 0, top: 0, width: size.width, height: size.height };
}

/** As transformers' image_transforms has it, in f64 as Python has it. */
function resizedSize({ width, height }: Size, to: ResizeTarget): Size {
  if ("height" in to) return to;
  if ("mostSides" in to) {
    const { mostSides: most, multiple } = to;
    const ratio = Math.max(1, height / most.height, width / most.width);
    const whole = (side: number) =>
      Math.ceil((ratio > 1 ? Math.floor(side / ratio) : side) / multiple) * multiple;
    return { height: whole(height), width: whole(width) };
  }
  if ("mostPatches" in to) return sizeOfMostPatches({ width, height }, to);
  if ("minPixels" in to) return smartResize({ width, height }, to);
  if ("maxHeight" in to) {
    if (to.onlyShrinks && width <= to.maxWidth && height <= to.maxHeight) return { width, height };
    const scale = Math.min(to.maxHeight / height, to.maxWidth / width);
    return { width: Math.trunc(width * scale), height: Math.trunc(height * scale) };
  }
  if ("leastEdge" in to) return withinEdges({ width, height }, to);
  const short = Math.min(width, height);
  const long = Math.max(width, height);
  const { shortestEdge, longestEdge } = to;
  let edge = shortestEdge;
  let exact = shortestEdge;
  if (longestEdge !== undefined) {
    if ((long / short) * shortestEdge > longestEdge) {
      exact = (longestEdge * short) / long;
      edge = roundHalfToEven(exact);
    }
    if (edge === short) return { width, height };
  }
  return width <= height
    ? { width: edge, height: Math.trunc((exact * height) / width) }
    : { width: Math.trunc((exact * width) / height), height: edge };
}

/** As Idefics 2's processor has it. */
function withinEdges(
  { width, height }: Size,
  { longestEdge, leastEdge }: { longestEdge: number; leastEdge: number },
): Size {
  const ratio = width / height;
  const tooLong = Math.max(width, height) > longestEdge;
  const wide = !tooLong ? width : width >= height ? longestEdge : Math.trunc(longestEdge * ratio);
  const high = !tooLong ? height : width >= height ? Math.trunc(longestEdge / ratio) : longestEdge;
  return { width: Math.max(wide, leastEdge), height: Math.max(high, leastEdge) };
}

/** The picture in the middle of a square as wide as its longer edge; an odd pixel goes to the right or below (LLaVA). */
function padToSquare(image: RgbImage, colour: readonly number[]): RgbImage {
  const side = Math.max(image.width, image.height);
  if (image.width === image.height) return image;
  checkPixelCount(side, side, DEFAULT_MAX_PIXELS);
  const left = -Math.floor((side - image.width) / 2);
  const top = -Math.floor((side - image.height) / 2);
  return crop(image, { left, top, width: side, height: side }, colour);
}

/** What each of the 256 values of a channel becomes; every step rounds to float32, as numpy does there. */
function channelValues(settings: ProcessorSettings, channel: number): Float32Array {
  const { scale, normalize } = settings;
  return Float32Array.from({ length: 256 }, (_, value) => {
    const scaled = Math.fround(value * scale);
    if (!normalize) return scaled;
    const centredOnZero = Math.fround(scaled - Math.fround(normalize.mean[channel]!));
    return centredOnZero / Math.fround(normalize.std[channel]!);
  });
}
