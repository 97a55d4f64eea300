import { ImageError } from "../../errors.ts";
import { lfsPointerProblem } from "../../platform/lfs-pointer.ts";
import { decodeJpeg } from "./jpeg.ts";
import { decodePng } from "./png.ts";
import { PNG_SIGNATURE } from "./png-chunks.ts";
import { DEFAULT_MAX_PIXELS, type RgbImage } from "./rgb.ts";
import { decodeWebp } from "./webp.ts";

export interface DecodeOptions {
  /** Pictures with more pixels are refused before anything is decompressed. Default 64 Mi (2 ** 26). */
  maxPixels?: number;
}

/**
 * Decodes the bytes of a PNG, JPEG or WebP file, told apart by how they begin, to 8-bit RGB: the same bytes that PIL and
 * transformers 5 come to, turned upright as Exif or XMP says. The format's own file says what becomes of transparency, 16
 * bits and animations, and of files that break their standard.
 *
 * Memory stays within a small multiple of `maxPixels`: some 20 bytes a pixel, twice that for 16-bit PNGs. Throws
 * ImageError for other formats and for damaged, truncated and too large pictures.
 */
export async function decodeImage(bytes: Uint8Array, options: DecodeOptions = {}): Promise<RgbImage> {
  const maxPixels = options.maxPixels ?? DEFAULT_MAX_PIXELS;
  // Codecs want an ArrayBuffer behind their bytes, not one that other threads may write.
  const own =
    bytes.buffer instanceof ArrayBuffer ? (bytes as Uint8Array<ArrayBuffer>) : Uint8Array.from(bytes);
  const start = Array.from(own.subarray(0, 12));
  if (PNG_SIGNATURE.every((byte, i) => byte === start[i])) return decodePng(own, maxPixels);
  if (start[0] === 0xff && start[1] === 0xd8) return decodeJpeg(own, maxPixels);
  const letters = String.fromCharCode(...start);
  if (letters.startsWith("RIFF") && letters.endsWith("WEBP")) return decodeWebp(own, maxPixels);
  const pointer = lfsPointerProblem(own);
  if (pointer) throw new ImageError(`expected a PNG, JPEG or WebP picture: ${pointer}`);
  const found = start.length === 0 ? "no bytes" : `a file that begins with ${hex(start)}`;
  throw new ImageError(`expected a PNG, JPEG or WebP picture, found ${found}`);
}

function hex(bytes: readonly number[]): string {
  return bytes.map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
}
