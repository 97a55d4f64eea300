import { ImageError } from "../../errors.ts";
import { orientationOf, upright } from "./orientation.ts";
import {
  PNG_GREY,
  PNG_GREY_ALPHA,
  PNG_PALETTE,
  PNG_RGB,
  PNG_RGBA,
  type PngChunks,
  type PngHeader,
  readPngChunks,
  samplesOf,
} from "./png-chunks.ts";
import { readRows } from "./png-rows.ts";
import { checkPixelCount, overWhite, type RgbImage } from "./rgb.ts";

/**
 * Decodes a PNG as transformers 5 does through PIL: transparency is laid over white, 16-bit grey is clipped at 255 (not
 * scaled), other 16-bit samples keep their high byte; a transparent colour is compared with the samples once they have 8
 * bits, and colours beyond the palette are black. Of an animated PNG, the default image. Turned upright as Exif says.
 *
 * Memory is bounded by the size in the header, and that by `maxPixels` and by what the file can possibly hold: nothing
 * is inflated beyond it. Throws ImageError for damaged, truncated and too large pictures.
 */
export async function decodePng(bytes: Uint8Array<ArrayBuffer>, maxPixels: number): Promise<RgbImage> {
  const chunks = readPngChunks(bytes);
  const { width, height } = chunks.header;
  checkPixelCount(width, height, maxPixels);
  const data = new Uint8Array(width * height * 3);
  const layers: Layer[] = [
    { data, colours: colourTable(chunks), transparent: transparentColour(chunks), lay: overWhite },
  ];
  const { colorType } = chunks.header;
  const hasAlpha = chunks.transparency || colorType === PNG_GREY_ALPHA || colorType === PNG_RGBA;
  if (hasAlpha) {
    const colours = colourTable({ ...chunks, transparency: undefined });
    layers.push({
      data: new Uint8Array(data.length),
      colours,
      transparent: undefined,
      lay: (sample) => sample,
    });
  }
  for (const { pass, rows } of readRows(chunks)) {
    const samples = new Uint8Array(pass.columns * samplesOf(chunks.header.colorType));
    for (let row = 0; row < pass.rows; row++) {
      const begin = row * (1 + pass.rowSize) + 1;
      to8Bits(rows.subarray(begin, begin + pass.rowSize), chunks.header, samples);
      const to = ((pass.top + row * pass.stepY) * width + pass.left) * 3;
      for (const layer of layers) paint(samples, colorType, layer, to, pass.stepX * 3);
    }
  }
  const opaque = layers[1]?.data;
  const differs = opaque?.some((byte, i) => byte !== data[i]);
  return upright({ width, height, data, ...(differs && { opaque }) }, orientationOf(chunks.metadata));
}

/** What is painted: the picture over white, or with its transparency left out of account. */
interface Layer {
  readonly data: Uint8Array;
  /** Of a palette. */
  readonly colours: Uint8Array;
  readonly transparent: readonly number[] | undefined;
  lay(sample: number, alpha: number): number;
}

/** The 256 colours that pixels of a palette may have, laid over white; those that the file does not give are black. */
function colourTable({ header, palette, transparency = new Uint8Array(0) }: PngChunks): Uint8Array {
  const colours = new Uint8Array(256 * 3);
  if (header.colorType !== PNG_PALETTE) return colours;
  if (!palette || palette.length < 3) {
    throw new ImageError("PNG: expected a palette (PLTE) before the picture data, found none");
  }
  colours.set(palette.subarray(0, Math.min(256, Math.trunc(palette.length / 3)) * 3));
  for (let i = 0; i < Math.min(256, transparency.length); i++) {
    for (let c = 3 * i; c < 3 * i + 3; c++) colours[c] = overWhite(colours[c]!, transparency[i]!);
  }
  return colours;
}

/** The samples of the colour that is transparent, in 8 bits. */
function transparentColour({ header, transparency }: PngChunks): readonly number[] | undefined {
  const { colorType, depth } = header;
  if (!transparency || (colorType !== PNG_GREY && colorType !== PNG_RGB)) return undefined;
  const samples = samplesOf(colorType);
  if (transparency.length < 2 * samples) {
    throw new ImageError(`PNG: expected tRNS of ${2 * samples} bytes, found ${transparency.length}`);
  }
  const low = Array.from({ length: samples }, (_, i) => transparency[2 * i + 1]!);
  return depth === 1 ? [low[0] || transparency[0] ? 255 : 0] : low;
}

/** The samples of a row as PIL's modes hold them. */
function to8Bits(row: Uint8Array, { depth, colorType }: PngHeader, samples: Uint8Array): void {
  if (depth === 8) samples.set(row);
  else if (depth === 16) {
    for (let i = 0; i < samples.length; i++) {
      const high = row[2 * i]!;
      samples[i] = colorType !== PNG_GREY ? high : high > 0 ? 255 : row[2 * i + 1]!;
    }
  } else {
    const mask = (1 << depth) - 1;
    const scale = colorType === PNG_PALETTE ? 1 : 255 / mask;
    for (let i = 0, bit = 0; i < samples.length; i++, bit += depth) {
      samples[i] = ((row[bit >> 3]! >> (8 - depth - (bit & 7))) & mask) * scale;
    }
  }
}

/** Writes the pixels of a row to `data`, the first at `to` and each `step` bytes behind the last. */
function paint(
  samples: Uint8Array,
  colorType: number,
  { data, colours, transparent, lay }: Layer,
  to: number,
  step: number,
): void {
  const set = (red: number, green: number, blue: number) => {
    data[to] = red;
    data[to + 1] = green;
    data[to + 2] = blue;
    to += step;
  };
  switch (colorType) {
    case PNG_PALETTE:
      for (const index of samples) set(colours[3 * index]!, colours[3 * index + 1]!, colours[3 * index + 2]!);
      return;
    case PNG_GREY:
      for (const sample of samples) {
        const grey = sample === transparent?.[0] ? 255 : sample;
        set(grey, grey, grey);
      }
      return;
    case PNG_GREY_ALPHA:
      for (let i = 0; i < samples.length; i += 2) {
        const grey = lay(samples[i]!, samples[i + 1]!);
        set(grey, grey, grey);
      }
      return;
    case PNG_RGB:
      if (!transparent && step === 3) {
        data.set(samples, to);
        return;
      }
      for (let i = 0; i < samples.length; i += 3) {
        if (transparent?.every((sample, c) => sample === samples[i + c])) set(255, 255, 255);
        else set(samples[i]!, samples[i + 1]!, samples[i + 2]!);
      }
      return;
    case PNG_RGBA:
      for (let i = 0; i < samples.length; i += 4) {
        const alpha = samples[i + 3]!;
        set(lay(samples[i]!, alpha), lay(samples[i + 1]!, alpha), lay(samples[i + 2]!, alpha));
      }
  }
}
