import { deflateSync } from "node:zlib";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ImageError } from "../../src/errors.ts";
import { decodeImage } from "../../src/images/files/decode.ts";
import { buildPng, concat, type PngSpec, pngChunk } from "../helpers/build-png.ts";
import { imageFile } from "../helpers/image-goldens.ts";

const small: PngSpec = { width: 2, height: 1, depth: 8, colorType: 0, rows: Uint8Array.of(0, 1, 2) };

async function expectRefusal(bytes: Uint8Array, message: RegExp, options = {}) {
  const error = await decodeImage(bytes, options).then(
    () => expect.fail("it decoded"),
    (reason) => reason,
  );
  expect(error).toBeInstanceOf(ImageError);
  expect(error.message).toMatch(message);
}

/** A file with some bytes replaced. */
function patched(file: Uint8Array, at: number, ...bytes: number[]): Uint8Array {
  const copy = Uint8Array.from(file);
  copy.set(bytes, at);
  return copy;
}

/** The same picture with other compressed data. */
function withData(spec: PngSpec, compressed: Uint8Array): Uint8Array {
  const png = buildPng(spec);
  return concat([png.slice(0, 33), pngChunk("IDAT", compressed), png.slice(-12)]);
}

/** A segment that decoders skip. */
const APP9 = 0xe9;

const SOS = 0xda;

function markerOf(jpeg: Uint8Array, marker: number, from = 0): number {
  return jpeg.findIndex((byte, i) => i >= from && byte === 0xff && jpeg[i + 1] === marker);
}

/** Where the marker stands for the n-th time, counted from 1, behind the first scan's header. */
function nthOf(jpeg: Uint8Array, marker: number, n: number): number {
  let at = markerOf(jpeg, SOS);
  for (let i = marker === SOS ? 1 : 0; i < n; i++) at = markerOf(jpeg, marker, at + 1);
  return at;
}

function without(file: Uint8Array, at: number, count: number): Uint8Array {
  return concat([file.slice(0, at), file.slice(at + count)]);
}

/** Where a JPEG's frame header (SOF0 or SOF2) begins. */
function frameOf(jpeg: Uint8Array): number {
  return Math.max(markerOf(jpeg, 0xc0), markerOf(jpeg, 0xc2));
}

/** Where the entropy-coded data of a JPEG begins. */
function scanOf(jpeg: Uint8Array): number {
  return markerOf(jpeg, 0xda) + 14;
}

describe("what is no picture", () => {
  test.each([
    ["nothing", new Uint8Array(0), /expected a PNG, JPEG or WebP picture, found no bytes/],
    ["text", new TextEncoder().encode("hello"), /begins with 68 65 6c 6c 6f/],
    ["a GIF", imageFile("formats/twelve-pixels.gif"), /begins with 47 49 46/],
  ])("%s", async (_, bytes, message) => expectRefusal(bytes, message));
});

describe("damaged PNG", () => {
  const png = buildPng(small);
  const ihdr = pngChunk("IHDR", png.slice(16, 29));
  const filterMethod = pngChunk("IHDR", patched(png.slice(16, 29), 11, 1));
  const palette = pngChunk("PLTE", Uint8Array.of(1, 2, 3, 4, 5, 6));

  test.each<[string, Uint8Array, RegExp]>([
    ["cut in a chunk", png.slice(0, 46), /PNG: truncated: IDAT should end at byte \d+, the data ends at 46/],
    ["cut between chunks", png.slice(0, 33), /truncated: ends after 33 bytes without IEND/],
    [
      "two headers",
      buildPng({ ...small, before: [ihdr] }),
      /IHDR first and only once, found IHDR at byte 33/,
    ],
    ["no header", concat([png.slice(0, 8), png.slice(33)]), /IHDR first and only once, found IDAT/],
    ["a chunk without a name", patched(png, 37, 0), /expected a chunk at byte 33, found none/],
    [
      "an unknown critical chunk",
      buildPng({ ...small, before: [pngChunk("NEWS", ihdr)] }),
      /critical chunks, found NEWS/,
    ],
    ["a wrong checksum", patched(png, 29, 0), /PNG: damaged: the checksum of IHDR at byte 8 is wrong/],
    [
      "a palette with a wrong checksum",
      buildPng({ ...small, colorType: 3, before: [patched(palette, 8, 7)] }),
      /PNG: damaged: the checksum of PLTE at byte 33 is wrong/,
    ],
    [
      "a transparent colour with a wrong checksum",
      buildPng({ ...small, before: [patched(pngChunk("tRNS", Uint8Array.of(0, 1)), 9, 2)] }),
      /PNG: damaged: the checksum of tRNS at byte 33 is wrong/,
    ],
    [
      "a transparent colour that is cut short",
      buildPng({ ...small, before: [pngChunk("tRNS", Uint8Array.of(1))] }),
      /PNG: expected tRNS of 2 bytes, found 1/,
    ],
    [
      "another filter method",
      concat([png.slice(0, 8), filterMethod, png.slice(33)]),
      /filter method 0, found .* 1/,
    ],
    ["2 bits of colour", buildPng({ ...small, depth: 2, colorType: 2 }), /colour type 2 with 2 bits/],
    [
      "no picture data",
      concat([png.slice(0, 33), png.slice(-12)]),
      /picture data \(IDAT\) before IEND, found none/,
    ],
    ["a colour type of 5", buildPng({ ...small, colorType: 5 }), /colour type 5 with 8 bits/],
    ["3 bits per sample", buildPng({ ...small, depth: 3 }), /colour type 0 with 3 bits/],
    ["no pixels", buildPng({ ...small, width: 0 }), /at least one pixel, found 0 x 1/],
    ["rows missing", buildPng({ ...small, height: 9 }), /expected 27 bytes of compressed rows, found 3/],
    ["an unknown filter", buildPng({ ...small, rows: Uint8Array.of(9, 1, 2) }), /filter 0 to 4 .* found 9/],
    [
      "no palette",
      buildPng({ ...small, colorType: 3 }),
      /palette \(PLTE\) before the picture data, found none/,
    ],
    ["a palette too late", buildPng({ ...small, colorType: 3, after: [palette] }), /palette \(PLTE\) before/],
    [
      "compressed data that is none",
      withData(small, new Uint8Array(20)),
      /compressed data is damaged or cut off after 0 of 3 bytes/,
    ],
    [
      "compressed data that is cut off",
      withData(small, deflateSync(small.rows).subarray(0, -6)),
      /compressed data is damaged or cut off/,
    ],
    [
      "compressed data with a wrong checksum",
      withData(small, patched(deflateSync(small.rows), deflateSync(small.rows).length - 1, 0)),
      /compressed data is damaged or cut off/,
    ],
  ])("%s", async (_, bytes, message) => expectRefusal(bytes, message));

  test("interlaced rows missing", async () => {
    const interlaced = buildPng({ ...small, width: 9, height: 9, interlace: 1 });
    await expectRefusal(interlaced, /PNG: expected 100 bytes of compressed rows, found 3/);
  });
});

describe("damaged JPEG", () => {
  const jpeg = imageFile("formats/420.jpg");
  const progressive = imageFile("formats/progressive.jpg");
  const restarts = imageFile("formats/restarts.jpg");
  const frame = frameOf(jpeg);
  const scan = scanOf(jpeg);
  const noise = patched(jpeg, scan, ...new Array(300).fill([0xff, 0]).flat());

  test.each<[string, Uint8Array, RegExp]>([
    ["cut in the picture", jpeg.slice(0, 2000), /JPEG: truncated: ends after 2000 bytes/],
    ["cut, with an end marker", concat([jpeg.slice(0, 2000), Uint8Array.of(0xff, 0xd9)]), /JPEG: damaged: /],
    ["cut in a segment", jpeg.slice(0, frame + 6), /truncated: the segment at byte \d+ reaches past the end/],
    ["no frame", Uint8Array.of(0xff, 0xd8, 0xff, 0xd9), /JPEG: expected a frame header, found none/],
    ["two frames", concat([jpeg.slice(0, frame + 19), jpeg.slice(frame)]), /expected one frame, found two/],
    ["12 bits", patched(jpeg, frame + 4, 12), /8 bits per sample, found 12/],
    ["no rows", patched(jpeg, frame + 5, 0, 0), /at least one pixel, found 97 x 0/],
    ["arithmetic coding", patched(jpeg, frame + 1, 0xc9), /found arithmetic coding \(SOF9\)/],
    ["lossless", patched(jpeg, frame + 1, 0xc3), /found a lossless or hierarchical one \(SOF3\)/],
    ["two beginnings", concat([jpeg.slice(0, 2), jpeg]), /one start-of-image marker, found two/],
    [
      "no scan",
      concat([jpeg.slice(0, scan - 14), jpeg.slice(-2)]),
      /truncated: .* the last scans are missing/,
    ],
    [
      "progressive without its last scans, which decoders smooth over, each in its own way",
      concat([progressive.slice(0, nthOf(progressive, SOS, 4)), progressive.slice(-2)]),
      /truncated: .* the last scans are missing/,
    ],
    [
      "damage behind a harmless fault, of which alone libjpeg speaks",
      concat([jpeg.slice(0, frame), Uint8Array.of(0, 0), noise.slice(frame)]),
      /JPEG: damaged: bad Huffman code/,
    ],
    ["a restart marker missing", without(restarts, nthOf(restarts, 0xd1, 1), 2), /JPEG: damaged: /],
    [
      "a restart marker one too high",
      patched(restarts, nthOf(restarts, 0xd1, 1) + 1, 0xd2),
      /instead of RST1/,
    ],
    ["CMYK", imageFile("formats/cmyk.jpg"), /1 \(grey\) or 3 \(colour\) components, found 4/],
    ["bits that are no code", noise, /JPEG: damaged: .*Huffman/],
    [
      "no quantization table",
      patched(jpeg, markerOf(jpeg, 0xdb) + 1, APP9),
      /JPEG: does not decode: .*[Qq]uantization/,
    ],
  ])("%s", async (_, bytes, message) => expectRefusal(bytes, message));
});

describe("damaged WebP", () => {
  const webp = imageFile("formats/lossless.webp");
  const animated = imageFile("formats/animated.webp");

  test.each<[string, Uint8Array, RegExp]>([
    ["cut", webp.slice(0, 5000), /WebP: truncated: expected \d+ bytes, found 5000/],
    ["cut in its header", webp.slice(0, 14), /WebP: truncated/],
    ["a chunk past the end", patched(webp, 16, 255, 255, 255), /the chunk at byte 12 reaches past the end/],
    [
      "no picture",
      patched(webp, 12, 0x41),
      /expected picture data, found APP|expected picture data, found AP8L/,
    ],
    ["damaged data", patched(webp, 30, ...new Array(400).fill(0xaa)), /WebP: does not decode/],
    [
      "a frame past its canvas",
      patched(
        animated,
        animated.findIndex(
          (b, i) =>
            b === 0x41 && animated[i + 3] === 0x46 && animated[i + 1] === 0x4e && animated[i + 2] === 0x4d,
        ) + 8,
        9,
      ),
      /frame inside the canvas of 80 x 61, found 80 x 61 at \(18, 0\)/,
    ],
  ])("%s", async (_, bytes, message) => expectRefusal(bytes, message));
});

describe("too large", () => {
  test("PNG, JPEG, WebP and animations are refused by their headers", async () => {
    const options = { maxPixels: 100 };
    await expectRefusal(
      imageFile("photo.png"),
      /at most 100 pixels \(option maxPixels\), found 97 x 64 = 6208/,
      options,
    );
    for (const name of ["420.jpg", "progressive.jpg", "lossy.webp", "lossless.webp"]) {
      await expectRefusal(imageFile(`formats/${name}`), /found 97 x 64 = 6208/, options);
    }
    await expectRefusal(imageFile("formats/animated.webp"), /found 80 x 61 = 4880/, options);
    await expectRefusal(imageFile("formats/lossy-alpha.webp"), /found 80 x 61 = 4880/, options);
    expect((await decodeImage(imageFile("photo.png"), { maxPixels: 97 * 64 })).width).toBe(97);
  });

  test("the default is 64 Mi pixels", async () => {
    const jpeg = imageFile("formats/420.jpg");
    await expectRefusal(patched(jpeg, frameOf(jpeg) + 5, 0xff, 0xff, 0xff, 0xff), /at most 67108864 pixels/);
    await expectRefusal(buildPng({ ...small, width: 8193, height: 8192 }), /at most 67108864 pixels/);
  });

  test("a PNG whose file is too short for its size is refused before any memory is taken", async () => {
    const png = buildPng({ ...small, width: 8192, height: 8192, depth: 16, colorType: 6 });
    await expectRefusal(
      png,
      /8192 x 8192 pixels need 536879104 bytes; \d+ compressed bytes cannot hold them/,
    );
  });

  test("a PNG that inflates to far more than its pixels costs no memory for it", async () => {
    const bomb = deflateSync(new Uint8Array(2 ** 28));
    const before = process.memoryUsage().rss;
    for (const interlace of [0, 1]) {
      const png = withData({ ...small, width: 64, height: 64, interlace }, bomb);
      expect((await decodeImage(png)).data).toEqual(new Uint8Array(64 * 64 * 3));
    }
    expect(process.memoryUsage().rss - before).toBeLessThan(2 ** 26);
  });

  test("a JPEG with more scans than any encoder writes is refused", async () => {
    const jpeg = imageFile("formats/progressive.jpg");
    const firstScan = scanOf(jpeg) - 14;
    const scans = new Array(101).fill(jpeg.slice(firstScan, firstScan + 14));
    const bytes = concat([jpeg.slice(0, firstScan), ...scans, jpeg.slice(firstScan)]);
    await expectRefusal(bytes, /at most 100 scans/);
  });
});

describe("fuzzed", () => {
  const edit = fc.record({
    at: fc.nat(),
    byte: fc.nat(255),
    kind: fc.constantFrom("set", "set", "flip", "insert", "delete", "cut"),
  });
  const names = fc.constantFrom(
    ...["photo.png", "rgba.png", "palette.png", "gray16.png"],
    ...[
      "formats/420.jpg",
      "formats/progressive.jpg",
      "formats/gray.jpg",
      "formats/restarts.jpg",
      "formats/rotated.jpg",
    ],
    ...["formats/lossy.webp", "formats/lossy-alpha.webp", "formats/animated.webp"],
  );
  const MAX_PIXELS = 2 ** 16;

  function mutate(file: Uint8Array, edits: { at: number; byte: number; kind: string }[]): Uint8Array {
    const bytes = Array.from(file);
    for (const { at, byte, kind } of edits) {
      // Half of the edits go to the first 64 bytes, where the headers are.
      const i = (at & 1 ? at >> 1 : (at >> 1) % 64) % Math.max(1, bytes.length);
      if (kind === "set") bytes[i] = byte;
      else if (kind === "flip") bytes[i] = (bytes[i] ?? 0) ^ (1 << (byte & 7));
      else if (kind === "insert") bytes.splice(i, 0, byte);
      else if (kind === "delete") bytes.splice(i, 1 + (byte & 3));
      else bytes.splice(Math.max(i, 20));
    }
    return Uint8Array.from(bytes);
  }

  /** Makes PNG checksums right again, so that damage reaches what lies behind them. */
  function withChecksums(png: Uint8Array): Uint8Array {
    const view = new DataView(png.buffer);
    const parts = [png.slice(0, 8)];
    let at = 8;
    while (at + 12 <= png.length && view.getUint32(at) <= png.length - at - 12) {
      const length = view.getUint32(at);
      const type = String.fromCharCode(...png.subarray(at + 4, at + 8));
      parts.push(
        /^[\x20-\x7e]{4}$/.test(type)
          ? pngChunk(type, png.slice(at + 8, at + 8 + length))
          : png.slice(at, at + 12 + length),
      );
      at += 12 + length;
    }
    return concat([...parts, png.slice(at)]);
  }

  test("a picture of sane size or an ImageError, always", async () => {
    let refused = 0;
    await fc.assert(
      fc.asyncProperty(
        names,
        fc.array(edit, { minLength: 1, maxLength: 6 }),
        fc.boolean(),
        async (name, edits, repair) => {
          const mutated = mutate(imageFile(name), edits);
          const bytes = repair && name.endsWith(".png") ? withChecksums(mutated) : mutated;
          try {
            const { width, height, data } = await decodeImage(bytes, { maxPixels: MAX_PIXELS });
            expect(width * height).toBeLessThanOrEqual(MAX_PIXELS);
            expect(data).toHaveLength(width * height * 3);
          } catch (error) {
            expect(error).toBeInstanceOf(ImageError);
            refused++;
          }
        },
      ),
      { numRuns: 3000 },
    );
    // Enough of each, or the mutations are too tame or too wild to test anything.
    expect(refused).toBeGreaterThan(1000);
    expect(refused).toBeLessThan(2900);
  });
});
