import mozjpeg from "@jsquash/jpeg/codec/dec/mozjpeg_dec.js";
import { ImageError } from "../../errors.ts";
import { EOI, type JpegFile, readJpegFile, withoutLeftOvers } from "./jpeg-file.ts";
import { orientationOf, upright } from "./orientation.ts";
import { checkPixelCount, type RgbImage, rgbaOverWhite } from "./rgb.ts";
import { type Decoded, runCodec } from "./wasm.ts";

interface Codec {
  decode(file: Uint8Array, upright: boolean): ImageData | null;
}

/**
 * Decodes a baseline or progressive JPEG, grey or colour, to the same bytes as PIL (mozjpeg and libjpeg-turbo share their
 * decoder), turned upright as its Exif orientation says, as transformers' `load_image` does.
 *
 * Files that break the standard where it does not matter decode as in PIL. Throws ImageError for damaged, truncated and too
 * large pictures, where PIL may fill in grey, and for CMYK, which libjpeg does not convert.
 */
export async function decodeJpeg(bytes: Uint8Array<ArrayBuffer>, maxPixels: number): Promise<RgbImage> {
  const file = readJpegFile(bytes);
  checkPixelCount(file.width, file.height, maxPixels);
  const { picture } = await decodeWhole(file);
  const image = rgbaOverWhite(picture.data, picture.width, picture.height);
  return upright(image, orientationOf(file.metadata));
}

/** libjpeg carries on after damage and fills in grey; it says so, but only the first time. */
async function decodeWhole(file: JpegFile): Promise<Decoded> {
  const decoded = await run(file.bytes);
  const warning = decoded.warnings[0];
  if (warning === undefined) return decoded;
  const leftOver = /(\d+) extraneous bytes before marker 0x([0-9a-f]{2})/.exec(warning);
  if (leftOver) {
    const count = Number(leftOver[1]);
    const marker = Number.parseInt(leftOver[2]!, 16);
    // Nothing that could be damaged comes behind.
    if (marker === EOI) return decoded;
    for (const candidate of withoutLeftOvers(file, marker, count)) {
      const again = await run(candidate);
      if (again.warnings.length === 0) return again;
    }
  }
  throw new ImageError(`JPEG: damaged: ${warning.replace(/^Corrupt JPEG data: /, "")}`);
}

function run(bytes: Uint8Array): Promise<Decoded> {
  return runCodec<Codec>("JPEG", mozjpeg, "@jsquash/jpeg/codec/dec/mozjpeg_dec.wasm", (codec) =>
    codec.decode(bytes, false),
  );
}
