import { ImageError } from "../tensor/errors.ts";
import type { RgbImage } from "./rgb.ts";

export type ResizeFilter = "nearest" | "bilinear" | "bicubic" | "lanczos";

/** A rectangle of pixels; `left` and `top` may be negative, and it may reach past the picture. */
export interface Rectangle {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
}

interface Kernel {
  /** Half its width, in source pixels when enlarging. */
  readonly support: number;
  weight(x: number): number;
}

const KERNELS: Record<Exclude<ResizeFilter, "nearest">, Kernel> = {
  bilinear: { support: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: { support: 2, weight: cubic },
  lanczos: { support: 3, weight: (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0) },
};

/** Keys' cubic convolution with a = -0.5. */
function cubic(x: number): number {
  const a = -0.5;
  const d = Math.abs(x);
  if (d < 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
  if (d < 2) return (((d - 5) * d + 8) * d - 4) * a;
  return 0;
}

function sinc(x: number): number {
  return x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI);
}

/**
 * Resizes to `width` x `height`, bit for bit as Pillow's `Image.resize` does for 8-bit RGB: the kernel is widened by the
 * reduction (antialiasing), weights are fixed-point with 22 fractional bits, columns are filtered before rows, and each
 * of the two passes rounds and clips to 8 bits (Pillow, src/libImaging/Resample.c; for "nearest" Geometry.c).
 *
 * With `region`, a rectangle inside the result, only those pixels are computed and returned; they are the same as those
 * of the whole. Throws ImageError for sizes that are not positive whole numbers and a region outside the result.
 */
export function resize(
  image: RgbImage,
  width: number,
  height: number,
  filter: ResizeFilter,
  region: Rectangle = { left: 0, top: 0, width, height },
): RgbImage {
  for (const n of [width, height, region.width, region.height]) {
    if (!Number.isSafeInteger(n) || n < 1) throw new ImageError(`resize: expected a whole number of pixels, found ${n}`);
  }
  const { left, top } = region;
  if (left < 0 || top < 0 || left + region.width > width || top + region.height > height) {
    throw new ImageError(
      `resize: expected a region inside ${width} x ${height}, ` +
        `found ${region.width} x ${region.height} at (${left}, ${top})`,
    );
  }
  if (filter === "nearest") return pickNearest(image, width, height, region);

  const columns = taps(KERNELS[filter], image.width, width);
  const rows = taps(KERNELS[filter], image.height, height);
  // The source rows that the region's rows reach: the first pass needs no others.
  const firstRow = rows(top).first;
  const last = rows(top + region.height - 1);
  const rowCount = last.first + last.weights.length - firstRow;
  const narrow = filterColumns(image, firstRow, rowCount, columns, left, region.width);
  return filterRows(narrow, firstRow, rows, top, region.height);
}

/** The source pixels that one output pixel is made of: `weights.length` of them, starting at `first`. */
interface Taps {
  readonly first: number;
  readonly weights: Int32Array;
}

const FRACTION_BITS = 22;
const HALF = 1 << (FRACTION_BITS - 1);

/** For an axis of `from` pixels resized to `to`: the taps of an output pixel. */
function taps(kernel: Kernel, from: number, to: number): (output: number) => Taps {
  // Pillow skips the pass; the kernels' weights at whole numbers, 1 and 0, come to the same.
  if (from === to) return (output) => ({ first: output, weights: Int32Array.of(1 << FRACTION_BITS) });
  const scale = from / to;
  const stretch = Math.max(scale, 1);
  const support = kernel.support * stretch;
  const toKernel = 1 / stretch;
  return (output) => {
    const centre = (output + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support + 0.5));
    const end = Math.min(from, Math.trunc(centre + support + 0.5));
    const exact = new Float64Array(end - first);
    let sum = 0;
    for (let i = 0; i < exact.length; i++) {
      exact[i] = kernel.weight((i + first - centre + 0.5) * toKernel);
      sum += exact[i]!;
    }
    const weights = new Int32Array(exact.length);
    for (let i = 0; i < exact.length; i++) {
      const normalised = sum === 0 ? exact[i]! : exact[i]! / sum;
      // Rounds half away from zero: the assignment truncates.
      weights[i] = normalised * (1 << FRACTION_BITS) + (normalised < 0 ? -0.5 : 0.5);
    }
    return { first, weights };
  };
}

function clip8(fixed: number): number {
  const value = fixed >> FRACTION_BITS;
  return value < 0 ? 0 : value > 255 ? 255 : value;
}

/** First pass: `rowCount` rows of the picture from `firstRow`, each narrowed or widened to `width` columns. */
function filterColumns(
  image: RgbImage,
  firstRow: number,
  rowCount: number,
  columns: (output: number) => Taps,
  left: number,
  width: number,
): RgbImage {
  const source = image.data;
  const data = new Uint8Array(rowCount * width * 3);
  for (let x = 0; x < width; x++) {
    const { first, weights } = columns(left + x);
    for (let y = 0; y < rowCount; y++) {
      let r = HALF;
      let g = HALF;
      let b = HALF;
      let from = ((firstRow + y) * image.width + first) * 3;
      for (let i = 0; i < weights.length; i++, from += 3) {
        const weight = weights[i]!;
        r = (r + source[from]! * weight) | 0;
        g = (g + source[from + 1]! * weight) | 0;
        b = (b + source[from + 2]! * weight) | 0;
      }
      const to = (y * width + x) * 3;
      data[to] = clip8(r);
      data[to + 1] = clip8(g);
      data[to + 2] = clip8(b);
    }
  }
  return { width, height: rowCount, data };
}

/** Second pass: `height` rows, `narrow` being the rows of the picture from `firstRow` on. */
function filterRows(
  narrow: RgbImage,
  firstRow: number,
  rows: (output: number) => Taps,
  top: number,
  height: number,
): RgbImage {
  const stride = narrow.width * 3;
  const data = new Uint8Array(height * stride);
  const sums = new Int32Array(stride);
  for (let y = 0; y < height; y++) {
    const { first, weights } = rows(top + y);
    sums.fill(HALF);
    for (let i = 0; i < weights.length; i++) {
      const weight = weights[i]!;
      const from = (first - firstRow + i) * stride;
      for (let x = 0; x < stride; x++) sums[x] = sums[x]! + narrow.data[from + x]! * weight;
    }
    for (let x = 0; x < stride; x++) data[y * stride + x] = clip8(sums[x]!);
  }
  return { width: narrow.width, height, data };
}

function pickNearest(image: RgbImage, width: number, height: number, region: Rectangle): RgbImage {
  const data = new Uint8Array(region.width * region.height * 3);
  const columns = nearestSources(image.width, width, region.left, region.width);
  const rows = nearestSources(image.height, height, region.top, region.height);
  let to = 0;
  for (const row of rows) {
    for (const column of columns) {
      const from = (row * image.width + column) * 3;
      data[to++] = image.data[from]!;
      data[to++] = image.data[from + 1]!;
      data[to++] = image.data[from + 2]!;
    }
  }
  return { width: region.width, height: region.height, data };
}

/** Which source pixel each of `count` output pixels from `begin` is. */
function nearestSources(from: number, to: number, begin: number, count: number): Uint32Array {
  const sources = new Uint32Array(count);
  const step = from / to;
  // Pillow steps along by addition; a product rounds differently at ties.
  let position = step * 0.5;
  for (let i = 0; i < begin + count; i++, position += step) {
    if (i >= begin) sources[i - begin] = Math.min(from - 1, Math.floor(position));
  }
  return sources;
}
