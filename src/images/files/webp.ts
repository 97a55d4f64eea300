import libwebp from "@jsquash/webp/codec/dec/webp_dec.js";
import { ImageError } from "../../errors.ts";
import { orientationOf, upright } from "./orientation.ts";
import { checkPixelCount, type RgbImage, rgbaOverWhite } from "./rgb.ts";
import { runCodec } from "./wasm.ts";

interface Codec {
  decode(file: Uint8Array): ImageData | null;
}

/** Flags of a VP8X chunk: what the file is said to have. Decoders go by them, not by the chunks that are there. */
const HAS_XMP = 0x04;
const HAS_EXIF = 0x08;
const HAS_ALPHA = 0x10;

/**
 * Decodes a lossy or lossless WebP to the same bytes as PIL, transparency laid over white unless the file's header says
 * that there is none. Of an animation, the first frame on its canvas. Turned upright as Exif says.
 *
 * Throws ImageError for damaged, truncated and too large pictures.
 */
export async function decodeWebp(bytes: Uint8Array<ArrayBuffer>, maxPixels: number): Promise<RgbImage> {
  const chunks = readChunks(bytes, 12, riffEnd(bytes));
  const find = (type: string) => chunks.find((chunk) => chunk.type === type)?.data;
  const canvas = find("VP8X");
  const flags = canvas?.[0] ?? HAS_ALPHA;
  const frame = find("ANMF");
  const rgba = frame
    ? await decodeFirstFrame(frame, canvas, maxPixels)
    : (await decode(bytes, chunks, maxPixels)).picture;
  // A lossless still says so itself.
  const hasAlpha = flags & HAS_ALPHA || (!frame && find("VP8L"));
  if (!hasAlpha) for (let i = 3; i < rgba.data.length; i += 4) rgba.data[i] = 255;
  const image = rgbaOverWhite(rgba.data, rgba.width, rgba.height);
  const exif = flags & HAS_EXIF ? find("EXIF") : undefined;
  const xmp = flags & HAS_XMP ? find("XMP ") : undefined;
  return upright(image, orientationOf({ exif, xmp }));
}

async function decodeFirstFrame(
  frame: Uint8Array<ArrayBuffer>,
  canvas: Uint8Array | undefined,
  maxPixels: number,
) {
  if (!canvas || canvas.length < 10 || frame.length < 16) {
    throw new ImageError("WebP: expected an animation with a canvas and whole frames, found neither");
  }
  const { width, height } = extendedSize(canvas);
  checkPixelCount(width, height, maxPixels);
  const left = 2 * uint24(frame, 0);
  const top = 2 * uint24(frame, 3);
  const still = stillOf(frame);
  const { picture } = await decode(still, readChunks(still, 12, still.length), maxPixels);
  if (left + picture.width > width || top + picture.height > height) {
    throw new ImageError(
      `WebP: expected a frame inside the canvas of ${width} x ${height}, ` +
        `found ${picture.width} x ${picture.height} at (${left}, ${top})`,
    );
  }
  const data = new Uint8Array(width * height * 4);
  for (let row = 0; row < picture.height; row++) {
    const pixels = picture.data.subarray(row * picture.width * 4, (row + 1) * picture.width * 4);
    data.set(pixels, ((top + row) * width + left) * 4);
  }
  return { width, height, data };
}

function decode(bytes: Uint8Array<ArrayBuffer>, chunks: readonly Chunk[], maxPixels: number) {
  const size = chunks.map(sizeInChunk).find((found) => found !== undefined);
  if (!size)
    throw new ImageError(
      `WebP: expected picture data, found ${chunks.map((c) => c.type).join(", ") || "nothing"}`,
    );
  checkPixelCount(size.width, size.height, maxPixels);
  return runCodec<Codec>("WebP", libwebp, "@jsquash/webp/codec/dec/webp_dec.wasm", (codec) =>
    codec.decode(bytes),
  );
}

interface Chunk {
  readonly type: string;
  readonly data: Uint8Array<ArrayBuffer>;
}

function riffEnd(bytes: Uint8Array): number {
  const end = 8 + new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).getUint32(4, true);
  if (end > bytes.length)
    throw new ImageError(`WebP: truncated: expected ${end} bytes, found ${bytes.length}`);
  return end;
}

function readChunks(bytes: Uint8Array<ArrayBuffer>, begin: number, end: number): Chunk[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const chunks: Chunk[] = [];
  for (let at = begin; at + 8 <= end; ) {
    const type = String.fromCharCode(...bytes.subarray(at, at + 4));
    const size = view.getUint32(at + 4, true);
    if (at + 8 + size > end)
      throw new ImageError(`WebP: truncated: the chunk at byte ${at} reaches past the end`);
    chunks.push({ type, data: bytes.subarray(at + 8, at + 8 + size) });
    at += 8 + size + (size % 2);
  }
  return chunks;
}

/** The picture size that a VP8X, VP8 or VP8L chunk declares. libwebp refuses a file in which they differ. */
function sizeInChunk({ type, data }: Chunk): { width: number; height: number } | undefined {
  if (type === "VP8X" && data.length >= 10) return extendedSize(data);
  if (type === "VP8 " && data.length >= 10) {
    return { width: (data[6]! | (data[7]! << 8)) & 0x3fff, height: (data[8]! | (data[9]! << 8)) & 0x3fff };
  }
  if (type === "VP8L" && data.length >= 5) {
    const bits = data[1]! | (data[2]! << 8) | (data[3]! << 16) | (data[4]! << 24);
    return { width: (bits & 0x3fff) + 1, height: ((bits >>> 14) & 0x3fff) + 1 };
  }
  return undefined;
}

function extendedSize(data: Uint8Array): { width: number; height: number } {
  return { width: uint24(data, 4) + 1, height: uint24(data, 7) + 1 };
}

function uint24(data: Uint8Array, at: number): number {
  return data[at]! | (data[at + 1]! << 8) | (data[at + 2]! << 16);
}

/** Wraps the picture of an ANMF chunk as a file of its own: behind a VP8X header, which its alpha chunk needs. */
function stillOf(frame: Uint8Array): Uint8Array<ArrayBuffer> {
  const picture = frame.subarray(16);
  const file = new Uint8Array(30 + picture.length);
  const view = new DataView(file.buffer);
  file.set(new TextEncoder().encode("RIFF....WEBPVP8X"));
  view.setUint32(4, file.length - 8, true);
  view.setUint32(16, 10, true);
  view.setUint8(20, HAS_ALPHA);
  // Width and height less one, 24 bits each, stand in the frame's header as VP8X wants them.
  file.set(frame.subarray(6, 12), 24);
  file.set(picture, 30);
  return file;
}
