import { ImageError } from "../tensor/errors.ts";

export interface PngHeader {
  readonly width: number;
  readonly height: number;
  /** Bits per sample: 1, 2, 4, 8 or 16. */
  readonly depth: number;
  readonly colorType: number;
  readonly interlaced: boolean;
}

export interface PngChunks {
  readonly header: PngHeader;
  /** What the picture is made of, each chunk whole (length, type, contents, checksum), IHDR to IEND. */
  readonly chunks: readonly Uint8Array<ArrayBuffer>[];
  /** The contents of the IDAT chunks: one zlib stream. */
  readonly compressed: readonly Uint8Array<ArrayBuffer>[];
}

export const PNG_SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
/** Samples per pixel, by colour type: grey, (no 1), RGB, palette index, grey and alpha, (no 5), RGBA. */
const SAMPLES = [1, 0, 3, 1, 2, 0, 4];
export const PNG_GREY = 0;
export const PNG_RGB = 2;

/**
 * Walks the chunks of a PNG, which has to start with its signature, without decompressing anything. Chunks that do not
 * change the pixels are left out, and so is whatever follows IEND; an animated PNG is reduced to its default image.
 *
 * Throws ImageError when a chunk is cut off, missing, doubled or unknown and critical, or the header makes no sense.
 */
export function readPngChunks(bytes: Uint8Array<ArrayBuffer>): PngChunks {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const chunks: Uint8Array<ArrayBuffer>[] = [];
  const compressed: Uint8Array<ArrayBuffer>[] = [];
  let header: PngHeader | undefined;
  for (let at = PNG_SIGNATURE.length; ; ) {
    if (at + 12 > bytes.length)
      throw new ImageError(`PNG: truncated: ends after ${bytes.length} bytes without IEND`);
    const length = view.getUint32(at);
    const end = at + 12 + length;
    const type = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    if (!/^[A-Za-z]{4}$/.test(type)) throw new ImageError(`PNG: expected a chunk at byte ${at}, found none`);
    if (end > bytes.length) {
      throw new ImageError(
        `PNG: truncated: ${type} should end at byte ${end}, the data ends at ${bytes.length}`,
      );
    }
    if ((type === "IHDR") === (header !== undefined)) {
      throw new ImageError(`PNG: expected IHDR first and only once, found ${type} at byte ${at}`);
    }
    header ??= readHeader(new DataView(bytes.buffer, bytes.byteOffset + at + 8, length));
    if (type === "IDAT") compressed.push(bytes.subarray(at + 8, end - 4));
    if (belongsToPicture(type, header)) chunks.push(bytes.subarray(at, end));
    if (type === "IEND") return { header, chunks, compressed };
    at = end;
  }
}

function readHeader(view: DataView): PngHeader {
  if (view.byteLength !== 13)
    throw new ImageError(`PNG: expected an IHDR of 13 bytes, found ${view.byteLength}`);
  const depth = view.getUint8(8);
  const colorType = view.getUint8(9);
  if (![1, 2, 4, 8, 16].includes(depth) || !SAMPLES[colorType]) {
    throw new ImageError(
      `PNG: expected a known pixel format, found colour type ${colorType} with ${depth} bits`,
    );
  }
  return {
    width: view.getUint32(0),
    height: view.getUint32(4),
    depth,
    colorType,
    interlaced: view.getUint8(12) === 1,
  };
}

function belongsToPicture(type: string, header: PngHeader): boolean {
  // PIL, and so transformers, reads RGB with a transparent colour as plain RGB.
  if (type === "tRNS") return header.colorType !== PNG_RGB;
  if (["IHDR", "PLTE", "IDAT", "IEND"].includes(type)) return true;
  const critical = type[0] === type[0]!.toUpperCase();
  if (critical) throw new ImageError(`PNG: expected known critical chunks, found ${type}`);
  return false;
}

/** Where each of the seven passes of an interlaced PNG starts, and its steps: x, y, x step, y step. */
const ADAM7 = [
  [0, 0, 8, 8],
  [4, 0, 8, 8],
  [0, 4, 4, 8],
  [2, 0, 4, 4],
  [0, 2, 2, 4],
  [1, 0, 2, 2],
  [0, 1, 1, 2],
] as const;

/** How many bytes the zlib stream has to hold: the rows of every pass, each behind the number of its filter. */
export function decompressedSize({ width, height, depth, colorType, interlaced }: PngHeader): number {
  const rowSize = (pixels: number) => 1 + Math.ceil((pixels * SAMPLES[colorType]! * depth) / 8);
  if (!interlaced) return height * rowSize(width);
  let total = 0;
  for (const [x, y, stepX, stepY] of ADAM7) {
    const columns = Math.max(0, Math.ceil((width - x) / stepX));
    const rows = Math.max(0, Math.ceil((height - y) / stepY));
    if (columns > 0) total += rows * rowSize(columns);
  }
  return total;
}
