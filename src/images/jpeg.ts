import mozjpeg from "@jsquash/jpeg/codec/dec/mozjpeg_dec.js";
import { ImageError } from "../tensor/errors.ts";
import { checkPixelCount, type RgbImage, rgbaOverWhite } from "./rgb.ts";
import { runCodec } from "./wasm.ts";

interface Codec {
  decode(file: Uint8Array, upright: boolean): ImageData | null;
}

/**
 * Decodes a baseline or progressive JPEG, grey or colour, to the same bytes as PIL (mozjpeg and libjpeg-turbo share their
 * decoder), turned upright as its Exif orientation says, as transformers' `load_image` does.
 *
 * Throws ImageError for damaged, truncated and too large pictures, and for CMYK, which libjpeg does not convert.
 */
export async function decodeJpeg(bytes: Uint8Array<ArrayBuffer>, maxPixels: number): Promise<RgbImage> {
  const { width, height } = readJpegHeader(bytes);
  checkPixelCount(width, height, maxPixels);
  const { picture, warnings } = await runCodec<Codec>(
    "JPEG",
    mozjpeg,
    "@jsquash/jpeg/codec/dec/mozjpeg_dec.wasm",
    (codec) => codec.decode(bytes, true),
  );
  // libjpeg carries on after damage and fills in grey. Stray bytes between segments are harmless; cameras write them.
  const damage = warnings.find((line) => !/extraneous bytes before marker/.test(line));
  if (damage) throw new ImageError(`JPEG: damaged: ${damage}`);
  return rgbaOverWhite(picture.data, picture.width, picture.height);
}

/** A progressive picture has about ten; each costs a pass over all its pixels, however short it is. */
const MAX_SCANS = 100;

/** Walks the markers from SOI to EOI (ITU T.81, annex B) without decoding. */
function readJpegHeader(bytes: Uint8Array): { width: number; height: number } {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let size: { width: number; height: number } | undefined;
  let scans = 0;
  for (let at = 2; ; ) {
    at = nextMarker(bytes, at);
    if (at + 1 >= bytes.length) {
      throw new ImageError(
        `JPEG: truncated: ends after ${bytes.length} bytes without an end-of-image marker`,
      );
    }
    const marker = bytes[at + 1]!;
    at += 2;
    if (marker === EOI) break;
    if (marker === SOI || marker === TEM) continue;
    const length = at + 2 <= bytes.length ? view.getUint16(at) : 0;
    if (length < 2 || at + length > bytes.length) {
      throw new ImageError(`JPEG: truncated: the segment at byte ${at - 2} reaches past the end`);
    }
    if (isFrame(marker)) {
      if (size) throw new ImageError("JPEG: expected one frame, found two");
      if (length < 8)
        throw new ImageError(`JPEG: expected a frame header of at least 8 bytes, found ${length}`);
      const [bits, components] = [view.getUint8(at + 2), view.getUint8(at + 7)];
      if (bits !== 8) throw new ImageError(`JPEG: expected 8 bits per sample, found ${bits}`);
      if (components !== 1 && components !== 3) {
        throw new ImageError(`JPEG: expected 1 (grey) or 3 (colour) components, found ${components}`);
      }
      size = { height: view.getUint16(at + 3), width: view.getUint16(at + 5) };
    }
    if (marker === SOS && ++scans > MAX_SCANS)
      throw new ImageError(`JPEG: expected at most ${MAX_SCANS} scans, found more`);
    at += length;
  }
  if (!size) throw new ImageError("JPEG: expected a frame header, found none");
  return size;
}

const TEM = 0x01;
const RST0 = 0xd0;
const RST7 = 0xd7;
const SOI = 0xd8;
const EOI = 0xd9;
const SOS = 0xda;

/** SOF0 to SOF15; DHT (c4), JPG (c8) and DAC (cc) lie among them. */
function isFrame(marker: number): boolean {
  return marker >= 0xc0 && marker <= 0xcf && marker !== 0xc4 && marker !== 0xc8 && marker !== 0xcc;
}

/** The next marker that is not part of the entropy-coded data of a scan (stuffed zeros, fill bytes, restarts). */
function nextMarker(bytes: Uint8Array, from: number): number {
  for (let at = bytes.indexOf(0xff, from); at !== -1; at = bytes.indexOf(0xff, at + 1)) {
    const next = bytes[at + 1];
    if (next !== 0x00 && next !== 0xff && !(next !== undefined && next >= RST0 && next <= RST7)) return at;
  }
  return bytes.length;
}
