import pngjs from "pngjs";
import { ImageError } from "../tensor/errors.ts";
import { decompressedSize, PNG_GREY, PNG_SIGNATURE, type PngChunks, readPngChunks } from "./png-chunks.ts";
import { checkPixelCount, type RgbImage, rgbaOverWhite } from "./rgb.ts";

const { PNG } = pngjs;

/**
 * Decodes a PNG as transformers 5 does through PIL: transparency is laid over white, 16-bit grey is clipped at 255 (not
 * scaled), other 16-bit samples keep their high byte. Of an animated PNG, the default image.
 *
 * Memory is bounded by the size in the header, and that by `maxPixels` and by what the file can possibly hold: nothing
 * is inflated beyond it. Throws ImageError for damaged, truncated and too large pictures.
 */
export async function decodePng(bytes: Uint8Array<ArrayBuffer>, maxPixels: number): Promise<RgbImage> {
  const parts = readPngChunks(bytes);
  const { width, height, depth, colorType } = parts.header;
  checkPixelCount(width, height, maxPixels);
  await checkCompressedData(parts);
  let pixels: ArrayLike<number>;
  try {
    // Rescaling would divide 16-bit samples by 257; smaller depths need it.
    pixels = PNG.sync.read(toBuffer(parts.chunks), { skipRescale: depth === 16 }).data;
  } catch (cause) {
    throw new ImageError(`PNG: does not decode: ${cause instanceof Error ? cause.message : cause}`, {
      cause,
    });
  }
  return rgbaOverWhite(depth === 16 ? to8Bits(pixels, colorType) : pixels, width, height);
}

/** Encodes a picture as an 8-bit RGB PNG. */
export function encodePng(image: RgbImage): Uint8Array<ArrayBuffer> {
  const png = new PNG({ width: image.width, height: image.height });
  for (let from = 0, to = 0; from < image.data.length; from += 3, to += 4) {
    png.data.set(image.data.subarray(from, from + 3), to);
    png.data[to + 3] = 255;
  }
  return Uint8Array.from(PNG.sync.write(png, { colorType: 2 }));
}

/**
 * Throws ImageError unless the compressed data is whole and exactly as long as the header says. pngjs would fill missing
 * rows with whatever is in memory, overlooks damage that ends the stream early, and inflates interlaced data without limit.
 */
async function checkCompressedData({ header, compressed }: PngChunks): Promise<void> {
  const expected = decompressedSize(header);
  const available = compressed.reduce((sum, part) => sum + part.length, 0);
  // deflate spends at least one bit on 129 bytes.
  if (expected > available * 1032) {
    throw new ImageError(
      `PNG: ${header.width} x ${header.height} pixels need ${expected} bytes; ` +
        `${available} compressed bytes cannot hold them`,
    );
  }
  const inflated = new Blob([...compressed])
    .stream()
    .pipeThrough(new DecompressionStream("deflate"))
    .getReader();
  let size = 0;
  try {
    for (let part = await inflated.read(); !part.done && size <= expected; part = await inflated.read()) {
      size += part.value.length;
    }
  } catch (cause) {
    throw new ImageError(
      `PNG: the compressed data is damaged or cut off after ${size} of ${expected} bytes`,
      { cause },
    );
  } finally {
    inflated.cancel().catch(() => {});
  }
  if (size !== expected) {
    throw new ImageError(
      `PNG: expected ${expected} bytes of compressed rows, found ${size > expected ? "more" : size}`,
    );
  }
}

/** The chunks as a PNG file in the kind of Buffer that pngjs works on, which in a browser is one of its own. */
function toBuffer(chunks: readonly Uint8Array[]): Buffer {
  const size = chunks.reduce((sum, chunk) => sum + chunk.length, PNG_SIGNATURE.length);
  const buffer = new PNG({ width: Math.ceil(size / 4), height: 1 }).data.slice(0, size);
  buffer.set(PNG_SIGNATURE);
  let at = PNG_SIGNATURE.length;
  for (const chunk of chunks) {
    buffer.set(chunk, at);
    at += chunk.length;
  }
  return buffer;
}

/** 16-bit RGBA to 8 bits, as PIL's modes do it. */
function to8Bits(pixels: ArrayLike<number>, colorType: number): Uint8Array {
  const narrowed = new Uint8Array(pixels.length);
  for (let i = 0; i < narrowed.length; i++) {
    const sample = pixels[i]!;
    narrowed[i] = colorType === PNG_GREY ? Math.min(sample, 255) : sample >> 8;
  }
  return narrowed;
}
