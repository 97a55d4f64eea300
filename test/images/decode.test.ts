import { readdirSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { decodeImage } from "../../src/images/files/decode.ts";
import { encodePng } from "../../src/images/files/png-write.ts";
import { rgbaOverWhite } from "../../src/images/files/rgb.ts";
import { buildPng, pngChunk, words } from "../helpers/build-png.ts";
import { IMAGES, imageFile, preprocessCase, preprocessGoldens } from "../helpers/image-goldens.ts";

const GREY = 0;
const RGB = 2;
const PALETTE = 3;
const GREY_ALPHA = 4;
const RGBA = 6;

/** A PNG of one row, decoded to its pixels. */
async function decodeRow(
  depth: number,
  colorType: number,
  width: number,
  row: number[],
  before: Uint8Array[] = [],
) {
  const png = buildPng({ width, height: 1, depth, colorType, rows: Uint8Array.of(0, ...row), before });
  const { data } = await decodeImage(png);
  return Array.from({ length: width }, (_, i) => Array.from(data.subarray(i * 3, i * 3 + 3)));
}

const greys = (...values: number[]) => values.map((value) => [value, value, value]);

describe("decodeImage", () => {
  test.each(preprocessCase.images)("$name: the 8-bit RGB that transformers sees", async ({ name }) => {
    const image = await decodeImage(imageFile(name));
    const golden = preprocessGoldens.get(`rgb/${name}`)!;
    expect([image.height, image.width, 3]).toEqual(golden.shape);
    expect(image.data).toEqual(golden.data);
  });

  const formats = readdirSync(new URL("formats", IMAGES)).filter((name) => /\.(jpg|webp)\.png$/.test(name));
  test("there is something to compare with in JPEG and WebP", () => expect(formats).toHaveLength(12));
  test.each(formats)("formats/%s: what PIL makes of the picture", async (name) => {
    const golden = await decodeImage(imageFile(`formats/${name}`));
    const { opaque, ...found } = await decodeImage(imageFile(`formats/${name.replace(/\.png$/, "")}`));
    expect(found).toEqual(golden); // which is over white
    expect(opaque !== undefined).toBe(/alpha|animated/.test(name));
  });

  test("two pictures at once do not disturb each other", async () => {
    const names = [
      "formats/420.jpg",
      "formats/gray.jpg",
      "formats/lossy.webp",
      "formats/lossless-alpha.webp",
    ];
    const together = await Promise.all(names.map((name) => decodeImage(imageFile(name))));
    for (const [i, name] of names.entries()) expect(together[i]).toEqual(await decodeImage(imageFile(name)));
  });
});

// What PIL 13 and transformers 5.24 make of the same rows.
describe("PNG pixel formats", () => {
  test("grey of 1, 2, 4 and 8 bits is scaled to 0 to 255", async () => {
    expect(await decodeRow(1, GREY, 4, [0x50])).toEqual(greys(0, 255, 0, 255));
    expect(await decodeRow(2, GREY, 4, [0x1b])).toEqual(greys(0, 85, 170, 255));
    expect(await decodeRow(4, GREY, 4, [0x03, 0x7f])).toEqual(greys(0, 51, 119, 255));
    expect(await decodeRow(8, GREY, 3, [0, 100, 255])).toEqual(greys(0, 100, 255));
  });

  test("16-bit grey is clipped, other 16-bit samples keep their high byte", async () => {
    expect(await decodeRow(16, GREY, 4, words(0, 100, 255, 40000))).toEqual(greys(0, 100, 255, 255));
    expect(await decodeRow(16, RGB, 2, words(0x12ff, 0x80ff, 40000, 0, 65535, 255))).toEqual([
      [18, 128, 156],
      [0, 255, 0],
    ]);
    expect(await decodeRow(16, GREY_ALPHA, 2, words(0x1234, 0x80ff, 40000, 0))).toEqual(greys(136, 255));
    expect(await decodeRow(16, RGBA, 2, words(0x12ff, 0x80ff, 40000, 0x80ff, 1, 65535, 255, 65535))).toEqual([
      [136, 191, 205],
      [0, 255, 0],
    ]);
  });

  test("alpha is laid over white", async () => {
    expect(await decodeRow(8, GREY_ALPHA, 2, [10, 128, 200, 0])).toEqual(greys(132, 255));
    expect(await decodeRow(8, RGBA, 1, [10, 20, 30, 51])).toEqual([[206, 208, 210]]);
  });

  test('what PIL\'s convert("RGB") makes of transparency, which is to ignore it, goes along', async () => {
    const row = async (colorType: number, width: number, rows: number[], before: Uint8Array[] = []) => {
      const png = { width, height: 1, depth: 8, colorType, rows: Uint8Array.of(0, ...rows), before };
      const { opaque } = await decodeImage(buildPng(png));
      return opaque && Array.from(opaque);
    };
    expect(await row(GREY_ALPHA, 2, [10, 128, 200, 0])).toEqual([10, 10, 10, 200, 200, 200]);
    expect(await row(RGBA, 1, [10, 20, 30, 51])).toEqual([10, 20, 30]);
    expect(await row(RGBA, 1, [10, 20, 30, 255])).toBeUndefined();
    const colours = pngChunk("PLTE", Uint8Array.of(1, 2, 3, 4, 5, 6));
    const alphas = pngChunk("tRNS", Uint8Array.of(0));
    expect(await row(PALETTE, 2, [0, 1], [colours, alphas])).toEqual([1, 2, 3, 4, 5, 6]);
    expect(await row(GREY, 2, [7, 8], [pngChunk("tRNS", Uint8Array.of(0, 7))])).toEqual([7, 7, 7, 8, 8, 8]);
    // The same turned upright: orientation 3 is upside down.
    const exif = pngChunk(
      "eXIf",
      Uint8Array.of(77, 77, 0, 42, 0, 0, 0, 8, 0, 1, 1, 18, 0, 3, 0, 0, 0, 1, 0, 3, 0, 0, 0, 0, 0, 0),
    );
    expect(await row(RGBA, 2, [1, 2, 3, 0, 4, 5, 6, 0], [exif])).toEqual([4, 5, 6, 1, 2, 3]);
  });

  test("palettes, with alpha too", async () => {
    const colours = pngChunk(
      "PLTE",
      Uint8Array.from({ length: 12 }, (_, i) => i),
    );
    const alphas = pngChunk("tRNS", Uint8Array.of(0, 128));
    expect(await decodeRow(2, PALETTE, 4, [0x1b], [colours, alphas])).toEqual([
      [255, 255, 255],
      [129, 129, 130],
      [6, 7, 8],
      [9, 10, 11],
    ]);
  });

  test("a transparent colour is white, compared in 8 bits, as in transformers", async () => {
    const grey = pngChunk("tRNS", Uint8Array.from(words(100)));
    expect(await decodeRow(8, GREY, 3, [0, 100, 3], [grey])).toEqual(greys(0, 255, 3));
    expect(await decodeRow(16, GREY, 3, words(0, 100, 40000), [grey])).toEqual(greys(0, 255, 255));
    const rgb = pngChunk("tRNS", Uint8Array.from(words(1, 2, 3)));
    expect(await decodeRow(8, RGB, 2, [1, 2, 3, 4, 5, 6], [rgb])).toEqual([
      [255, 255, 255],
      [4, 5, 6],
    ]);
    const high = pngChunk("tRNS", Uint8Array.from(words(0x404, 0x505, 0x606)));
    expect(await decodeRow(16, RGB, 2, words(1, 2, 3, 0x409, 0x505, 0x606), [high])).toEqual([
      [0, 0, 0],
      [255, 255, 255],
    ]);
    // Scaled to 8 bits before, so that 1 of 3 is never found, and of the value only the low byte.
    const one = pngChunk("tRNS", Uint8Array.from(words(1)));
    expect(await decodeRow(2, GREY, 4, [0x1b], [one])).toEqual(greys(0, 85, 170, 255));
    expect(await decodeRow(1, GREY, 4, [0x50], [one])).toEqual(greys(0, 255, 0, 255));
    const black = pngChunk("tRNS", Uint8Array.from(words(0x100)));
    expect(await decodeRow(4, GREY, 2, [0x0a], [black])).toEqual(greys(255, 170));
    expect(await decodeRow(8, GREY, 2, [0, 1], [black])).toEqual(greys(255, 1));
  });

  test("interlaced rows come out in order", async () => {
    // 3 x 3: pass 1 has pixel (0,0); pass 4 (2,0); pass 5 (0,2) and (2,2); pass 6 (1,0) and (1,2); pass 7 the row 1.
    const rows = Uint8Array.of(0, 1, 0, 3, 0, 7, 9, 0, 2, 0, 8, 0, 4, 5, 6);
    const png = buildPng({ width: 3, height: 3, depth: 8, colorType: GREY, interlace: 1, rows });
    const { data } = await decodeImage(png);
    expect(Array.from(data).filter((_, i) => i % 3 === 0)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9]);
  });

  test("of an animated PNG the default image; bytes after the end do not matter", async () => {
    const still = { width: 1, height: 1, depth: 8, colorType: GREY, rows: Uint8Array.of(0, 7) };
    const animated = buildPng({
      ...still,
      before: [pngChunk("acTL", Uint8Array.of(0, 0, 0, 2, 0, 0, 0, 0))],
      after: [pngChunk("fcTL", new Uint8Array(26)), pngChunk("fdAT", new Uint8Array(9))],
    });
    const expected = { width: 1, height: 1, data: Uint8Array.of(7, 7, 7) };
    expect(await decodeImage(animated)).toEqual(expected);
    expect(await decodeImage(Uint8Array.of(...buildPng(still), 1, 2, 3))).toEqual(expected);
  });

  test("any picture survives encodePng", async () => {
    const size = fc.integer({ min: 1, max: 20 });
    await fc.assert(
      fc.asyncProperty(size, size, fc.infiniteStream(fc.nat(255)), async (width, height, bytes) => {
        const data = Uint8Array.from({ length: width * height * 3 }, () => bytes.next().value);
        expect(await decodeImage(encodePng({ width, height, data }))).toEqual({ width, height, data });
      }),
    );
  });
});

test("rgbaOverWhite rounds as PIL's alpha_composite, for every value and alpha", () => {
  const rgba = Uint8Array.from({ length: 256 * 256 * 4 }, (_, i) => {
    const pixel = i >> 2;
    return i % 4 === 3 ? pixel >> 8 : pixel & 255;
  });
  const { data } = rgbaOverWhite(rgba, 256, 256);
  const wrong = data.findIndex((found, i) => {
    const pixel = Math.floor(i / 3);
    const alpha = pixel >> 8;
    // AlphaComposite.c divides by 255 with shifts, on seven extra bits.
    const sum = ((pixel & 255) * alpha + 255 * (255 - alpha)) * 128 + 128 * 128;
    return found !== (((sum >> 8) + sum) >> 8) >> 7;
  });
  expect(wrong).toBe(-1);
});
