import { ImageError } from "../errors.ts";
import { checkRgbImage, type RgbImage } from "./files/rgb.ts";

/** A filter of {@link resize}, by the name that Pillow has for it. */
export type ResizeFilter = "nearest" | "box" | "bilinear" | "hamming" | "bicubic" | "lanczos";

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
  box: { support: 0.5, weight: (x) => (x > -0.5 && x <= 0.5 ? 1 : 0) },
  hamming: {
    support: 1,
    weight: (x) => (Math.abs(x) < 1 ? sinc(x) * (0.54 + 0.46 * Math.cos(x * Math.PI)) : 0),
  },
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
 * Resizes to `width` x `height`, bit for bit as Pillow 13's `Image.resize` does for 8-bit RGB: the kernel is widened by
 * the reduction (antialiasing), weights are fixed-point with 22 fractional bits, and each of the two passes rounds and
 * clips to 8 bits (Pillow, src/libImaging/Resample.c; for "nearest" Geometry.c).
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
  checkRgbImage("resize", image);
  for (const n of [width, height, region.width, region.height]) {
    if (!Number.isSafeInteger(n) || n < 1)
      throw new ImageError(`resize: expected a whole number of pixels, found ${n}`);
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
  const outColumns = { begin: left, count: region.width };
  const outRows = { begin: top, count: region.height };
  // Each pass rounds, so their order shows in the result. Pillow before 13 always filtered columns first.
  const rowsFirst = height < image.height && image.height - height > 2 * (image.width - width);
  if (rowsFirst) {
    const needed = reachOf(columns, outColumns);
    const low = filterRows(image, needed, rows, outRows);
    return filterColumns(low, wholeAxis(low.height), shifted(columns, needed.begin), outColumns);
  }
  const needed = reachOf(rows, outRows);
  const narrow = filterColumns(image, needed, columns, outColumns);
  return filterRows(narrow, wholeAxis(narrow.width), shifted(rows, needed.begin), outRows);
}

/** Some neighbouring rows or columns. */
interface Interval {
  readonly begin: number;
  readonly count: number;
}

const wholeAxis = (count: number): Interval => ({ begin: 0, count });

/** The source pixels that one output pixel is made of: `weights.length` of them, starting at `first`. */
interface Taps {
  readonly first: number;
  readonly weights: Int32Array;
}

const FRACTION_BITS = 22;
const HALF = 1 << (FRACTION_BITS - 1);

/** The taps of each output pixel along an axis. */
type Axis = (output: number) => Taps;

/** The taps for an axis of `from` pixels resized to `to`. */
function taps(kernel: Kernel, from: number, to: number): Axis {
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

/** The source pixels that these output pixels are made of. */
function reachOf(axis: Axis, outputs: Interval): Interval {
  const { first } = axis(outputs.begin);
  const last = axis(outputs.begin + outputs.count - 1);
  return { begin: first, count: last.first + last.weights.length - first };
}

/** The same taps, on a picture that begins at pixel `begin` of the axis. */
function shifted(axis: Axis, begin: number): Axis {
  return (output) => {
    const { first, weights } = axis(output);
    return { first: first - begin, weights };
  };
}

function clip8(fixed: number): number {
  return Math.max(0, Math.min(255, fixed >> FRACTION_BITS));
}

/** Resizes each of these rows of the picture to the columns asked for. */
function filterColumns(image: RgbImage, rows: Interval, axis: Axis, columns: Interval): RgbImage {
  const source = image.data;
  const data = new Uint8Array(rows.count * columns.count * 3);
  for (let x = 0; x < columns.count; x++) {
    const { first, weights } = axis(columns.begin + x);
    for (let y = 0; y < rows.count; y++) {
      let r = HALF;
      let g = HALF;
      let b = HALF;
      let from = ((rows.begin + y) * image.width + first) * 3;
      for (let i = 0; i < weights.length; i++, from += 3) {
        const weight = weights[i]!;
        r = (r + source[from]! * weight) | 0;
        g = (g + source[from + 1]! * weight) | 0;
        b = (b + source[from + 2]! * weight) | 0;
      }
      const to = (y * columns.count + x) * 3;
      data[to] = clip8(r);
      data[to + 1] = clip8(g);
      data[to + 2] = clip8(b);
    }
  }
  return { width: columns.count, height: rows.count, data };
}

/** Resizes each of these columns of the picture to the rows asked for. */
function filterRows(image: RgbImage, columns: Interval, axis: Axis, rows: Interval): RgbImage {
  const source = image.data;
  const samples = columns.count * 3;
  const data = new Uint8Array(rows.count * samples);
  const sums = new Int32Array(samples);
  for (let y = 0; y < rows.count; y++) {
    const { first, weights } = axis(rows.begin + y);
    sums.fill(HALF);
    for (let i = 0; i < weights.length; i++) {
      const weight = weights[i]!;
      const from = ((first + i) * image.width + columns.begin) * 3;
      for (let x = 0; x < samples; x++) sums[x] = sums[x]! + source[from + x]! * weight;
    }
    for (let x = 0; x < samples; x++) data[y * samples + x] = clip8(sums[x]!);
  }
  return { width: columns.count, height: rows.count, data };
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
