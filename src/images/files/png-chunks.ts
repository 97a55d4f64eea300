import { ImageError } from "../../errors.ts";
import { crc32 } from "./crc32.ts";
import type { Metadata } from "./orientation.ts";
import { readText } from "./png-text.ts";

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
  /** The colours of PLTE, three bytes each. */
  readonly palette?: Uint8Array;
  /** The contents of tRNS. */
  readonly transparency?: Uint8Array;
  /** The contents of the IDAT chunks: one zlib stream. */
  readonly compressed: readonly Uint8Array[];
  readonly metadata: Metadata;
  /** Where the file breaks off; undefined for one that has an end. */
  readonly cutOff?: string;
}

export const PNG_SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
export const PNG_GREY = 0;
export const PNG_RGB = 2;
export const PNG_PALETTE = 3;
export const PNG_GREY_ALPHA = 4;
export const PNG_RGBA = 6;
/** Samples per pixel by colour type, and the depths they come in. */
const FORMATS: ReadonlyMap<number, { samples: number; depths: readonly number[] }> = new Map([
  [PNG_GREY, { samples: 1, depths: [1, 2, 4, 8, 16] }],
  [PNG_RGB, { samples: 3, depths: [8, 16] }],
  [PNG_PALETTE, { samples: 1, depths: [1, 2, 4, 8] }],
  [PNG_GREY_ALPHA, { samples: 2, depths: [8, 16] }],
  [PNG_RGBA, { samples: 4, depths: [8, 16] }],
]);

/**
 * Walks the chunks of a PNG, which has to start with its signature, without decompressing the picture. Whatever follows
 * IEND is left out; an animated PNG is reduced to its default image.
 *
 * As in Pillow, the end of the file may be missing or damaged once there is picture data; whether that is whole, the zlib
 * stream and its checksum tell. The last of several palettes counts.
 *
 * Throws ImageError when a chunk before the picture data is cut off, and when one that the pixels depend on is missing,
 * doubled, damaged, or unknown and critical.
 */
export function readPngChunks(bytes: Uint8Array<ArrayBuffer>): PngChunks {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const compressed: Uint8Array[] = [];
  const metadata: Metadata = {};
  let header: PngHeader | undefined;
  let palette: Uint8Array | undefined;
  let transparency: Uint8Array | undefined;
  let cutOff: string | undefined;
  for (let at = PNG_SIGNATURE.length; ; ) {
    const seen = compressed.length > 0;
    if (at + 8 > bytes.length) {
      cutOff = `ends after ${bytes.length} bytes without IEND`;
      break;
    }
    const length = view.getUint32(at);
    const type = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    if (!/^\w{4}$/.test(type)) {
      cutOff = `expected a chunk at byte ${at}, found none`;
      if (seen) break;
      throw new ImageError(`PNG: ${cutOff}`);
    }
    if (type === "IEND") break;
    const contents = bytes.subarray(at + 8, at + 8 + length);
    const end = at + 12 + length;
    if (end > bytes.length) {
      if (type === "IDAT") compressed.push(contents);
      cutOff = `${type} should end at byte ${end}, the data ends at ${bytes.length}`;
      break;
    }
    const checked = () => {
      if (crc32(bytes.subarray(at + 4, end - 4)) !== view.getUint32(end - 4))
        throw new ImageError(`PNG: damaged: the checksum of ${type} at byte ${at} is wrong`);
      return contents;
    };
    const critical = type[0] === type[0]!.toUpperCase();
    if (type === "IHDR" ? header : critical && !header) {
      throw new ImageError(`PNG: expected IHDR first and only once, found ${type} at byte ${at}`);
    }
    if (type === "IHDR") header = readHeader(checked());
    else if (type === "IDAT") compressed.push(contents);
    else if (type === "PLTE") palette = seen ? palette : checked();
    else if (type === "tRNS") transparency = checked();
    else if (critical) throw new ImageError(`PNG: expected known critical chunks, found ${type}`);
    else readText(type, contents, metadata);
    at = end;
  }
  if (!header || compressed.length === 0) {
    throw new ImageError(
      cutOff ? `PNG: truncated: ${cutOff}` : `PNG: expected picture data (IDAT) before IEND, found none`,
    );
  }
  return { header, palette, transparency, compressed, metadata, cutOff };
}

function readHeader(contents: Uint8Array): PngHeader {
  if (contents.length < 13)
    throw new ImageError(`PNG: expected an IHDR of 13 bytes, found ${contents.length}`);
  const view = new DataView(contents.buffer, contents.byteOffset, contents.byteLength);
  const depth = contents[8]!;
  const colorType = contents[9]!;
  if (!FORMATS.get(colorType)?.depths.includes(depth)) {
    throw new ImageError(
      `PNG: expected a known pixel format, found colour type ${colorType} with ${depth} bits`,
    );
  }
  if (contents[11] !== 0)
    throw new ImageError(`PNG: expected filter method 0, found filter method ${contents[11]}`);
  return {
    width: view.getUint32(0),
    height: view.getUint32(4),
    depth,
    colorType,
    interlaced: contents[12] !== 0,
  };
}

/** Some of the pixels of a picture, as a PNG holds them one row after the other. */
export interface PngPass {
  readonly left: number;
  readonly top: number;
  readonly stepX: number;
  readonly stepY: number;
  /** Pixels in a row. */
  readonly columns: number;
  readonly rows: number;
  /** Bytes of a row, without the number of its filter. */
  readonly rowSize: number;
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

/** The passes of a picture that have pixels, in the order of the file. */
export function passesOf({ width, height, depth, colorType, interlaced }: PngHeader): PngPass[] {
  const bits = samplesOf(colorType) * depth;
  return (interlaced ? ADAM7 : ([[0, 0, 1, 1]] as const))
    .map(([left, top, stepX, stepY]) => {
      const columns = Math.max(0, Math.ceil((width - left) / stepX));
      const rows = Math.max(0, Math.ceil((height - top) / stepY));
      return { left, top, stepX, stepY, columns, rows, rowSize: Math.ceil((columns * bits) / 8) };
    })
    .filter(({ columns, rows }) => columns > 0 && rows > 0);
}

/** Samples per pixel. */
export function samplesOf(colorType: number): number {
  return FORMATS.get(colorType)!.samples;
}
