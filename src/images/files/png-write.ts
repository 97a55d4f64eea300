import { deflate } from "pako";
import { crc32 } from "./crc32.ts";
import { checkRgbImage, type RgbImage } from "./rgb.ts";

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
/** 8 bits, RGB, deflate, filters by row, not interlaced. */
const MODE = [8, 2, 0, 0, 0];

/** Encodes a picture as an 8-bit RGB PNG. */
export function encodePng(image: RgbImage): Uint8Array<ArrayBuffer> {
  checkRgbImage("encodePng", image);
  const header = new Uint8Array(13);
  const view = new DataView(header.buffer);
  view.setUint32(0, image.width);
  view.setUint32(4, image.height);
  header.set(MODE, 8);
  const chunks = [
    Uint8Array.from(SIGNATURE),
    chunk("IHDR", header),
    chunk("IDAT", deflate(filteredRows(image), { level: 9 })),
    chunk("IEND", new Uint8Array(0)),
  ];
  const file = new Uint8Array(chunks.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const each of chunks) {
    file.set(each, at);
    at += each.length;
  }
  return file;
}

/** Length, name, content, checksum of the last two. */
function chunk(name: string, content: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(12 + content.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, content.length);
  for (let i = 0; i < 4; i++) bytes[4 + i] = name.charCodeAt(i);
  bytes.set(content, 8);
  view.setUint32(8 + content.length, crc32(bytes.subarray(4, 8 + content.length)));
  return bytes;
}

/**
 * Rows as differences to their neighbours (PNG, section 9), each behind a byte that names its filter: the one with the least sum
 * of absolute differences, as section 12.8 recommends.
 */
function filteredRows({ width, height, data }: RgbImage): Uint8Array {
  const size = 3 * width;
  const rows = new Uint8Array(height * (1 + size));
  const tried = new Uint8Array(size);
  let above: Uint8Array = new Uint8Array(size);
  for (let row = 0; row < height; row++) {
    const now = data.subarray(row * size, (row + 1) * size);
    let least = Number.POSITIVE_INFINITY;
    for (let filter = 0; filter < FILTERS.length; filter++) {
      const predict = FILTERS[filter]!;
      let sum = 0;
      for (let i = 0; i < size; i++) {
        const left = i < 3 ? 0 : now[i - 3]!;
        const corner = i < 3 ? 0 : above[i - 3]!;
        tried[i] = now[i]! - predict(left, above[i]!, corner);
        sum += tried[i]! < 128 ? tried[i]! : 256 - tried[i]!;
      }
      if (sum >= least) continue;
      least = sum;
      rows[row * (1 + size)] = filter;
      rows.set(tried, row * (1 + size) + 1);
    }
    above = now;
  }
  return rows;
}

/** What each filter expects of a sample from those at its left, above, and above at the left: none, left, above, mean, Paeth. */
const FILTERS: readonly ((left: number, above: number, corner: number) => number)[] = [
  () => 0,
  (left) => left,
  (_, above) => above,
  (left, above) => (left + above) >> 1,
  (left, above, corner) => {
    const toLeft = Math.abs(above - corner);
    const toAbove = Math.abs(left - corner);
    const toCorner = Math.abs(left + above - 2 * corner);
    if (toLeft <= toAbove && toLeft <= toCorner) return left;
    return toAbove <= toCorner ? above : corner;
  },
];
