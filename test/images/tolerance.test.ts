import { readFileSync } from "node:fs";
import { deflateSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { decodeImage } from "../../src/images/files/decode.ts";
import type { RgbImage } from "../../src/images/files/rgb.ts";
import { buildPng, concat, type PngSpec, pngChunk } from "../helpers/build-png.ts";
import { IMAGES, imageFile } from "../helpers/image-goldens.ts";

// Files that break their standard where it does not matter. What each should decode to is what Pillow 13.0.0 makes of it
// (libjpeg-turbo 3.2.0, libwebp 1.6.0), then turned upright and laid over white as transformers 5.24 does.

const bytesOf = (text: string) => new TextEncoder().encode(text);

/** An Exif record with nothing but an orientation, as a number of 2 or 4 bytes. */
function exif(orientation: number, { little = false, long = false } = {}): Uint8Array {
  const view = new DataView(new ArrayBuffer(26));
  view.setUint16(0, little ? 0x4949 : 0x4d4d);
  view.setUint16(2, 42, little);
  view.setUint32(4, 8, little);
  view.setUint16(8, 1, little);
  view.setUint16(10, 0x0112, little);
  view.setUint16(12, long ? 4 : 3, little);
  view.setUint32(14, 1, little);
  if (long) view.setUint32(18, orientation, little);
  else view.setUint16(18, orientation, little);
  return new Uint8Array(view.buffer);
}

const xmp = (orientation: number) =>
  bytesOf(`<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="${orientation}"/>`);

/** A picture turned a quarter to the right. */
function turned({ width, height, data }: RgbImage): RgbImage {
  const out = new Uint8Array(data.length);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const from = (y * width + x) * 3;
      out.set(data.subarray(from, from + 3), (x * height + height - 1 - y) * 3);
    }
  }
  return { width: height, height: width, data: out };
}

const upsideDown = (image: RgbImage) => turned(turned(image));

describe("JPEG", () => {
  const jpeg = imageFile("formats/420.jpg");
  const progressive = imageFile("formats/progressive.jpg");
  const restarts = imageFile("formats/restarts.jpg");
  const grey = imageFile("formats/gray.jpg");

  const SOS = 0xda;
  const find = (file: Uint8Array, marker: number, from = 0) =>
    file.findIndex((byte, i) => i >= from && byte === 0xff && file[i + 1] === marker);
  const at = (file: Uint8Array, index: number, ...bytes: number[]) => {
    const copy = Uint8Array.from(file);
    copy.set(bytes, index);
    return copy;
  };
  const insert = (file: Uint8Array, index: number, ...parts: Uint8Array[]) =>
    concat([file.slice(0, index), ...parts, file.slice(index)]);
  const segment = (marker: number, contents: Uint8Array) =>
    concat([Uint8Array.of(0xff, marker, (contents.length + 2) >> 8, contents.length + 2), contents]);
  const zeros = (count: number) => new Uint8Array(count);

  const frame = find(jpeg, 0xc0);
  const jfif = find(jpeg, 0xe0);
  const withoutJfif = concat([jpeg.slice(0, jfif), jpeg.slice(jfif + 18)]);
  const adobe = (transform: number) =>
    segment(0xee, concat([bytesOf("Adobe"), Uint8Array.of(0, 100, 0, 0, 0, 0, transform)]));
  const scanParameters = (file: Uint8Array) => {
    const scan = find(file, SOS);
    return scan + 5 + 2 * file[scan + 4]!;
  };
  const secondScan = find(progressive, 0xc4, find(progressive, SOS));
  const restart = find(restarts, 0xd1, find(restarts, SOS));
  const app1 = (...parts: Uint8Array[]) => segment(0xe1, concat(parts));
  const exifSegment = (record: Uint8Array) => app1(bytesOf("Exif\0\0"), record);

  // Pillow's pixels equal those of the intact file.
  test.each<[string, Uint8Array, Uint8Array]>([
    ["a camera maker's zeros for the spectral selection", at(jpeg, scanParameters(jpeg), 0, 0, 0), jpeg],
    ["the same in grey", at(grey, scanParameters(grey), 0, 0, 0), grey],
    ["a spectral selection up to 255", at(jpeg, scanParameters(jpeg), 0, 255, 0), jpeg],
    ["successive approximation in a baseline picture", at(jpeg, scanParameters(jpeg), 0, 63, 0x12), jpeg],
    ["JFIF 3.01", at(jpeg, jfif + 9, 3, 1), jpeg],
    ["JFIF 0.00", at(jpeg, jfif + 9, 0, 0), jpeg],
    ["JFIF 3.01 and zeros", at(at(jpeg, jfif + 9, 3, 1), scanParameters(jpeg), 0, 0, 0), jpeg],
    ["Adobe's transform 2, of four components", insert(withoutJfif, 2, adobe(2)), jpeg],
    ["an Adobe transform of 255", insert(withoutJfif, 2, adobe(255)), jpeg],
    ["two Adobe markers", insert(withoutJfif, 2, adobe(0), adobe(9)), jpeg],
    ["an Adobe marker cut short", insert(withoutJfif, 2, segment(0xee, bytesOf("Adobe\0d"))), jpeg],
    ["stray bytes between segments", insert(jpeg, frame, zeros(3)), jpeg],
    ["stray bytes that look like data", insert(jpeg, frame, Uint8Array.of(0xff, 0, 9, 0xff, 0)), jpeg],
    ["fill bytes", insert(jpeg, frame, Uint8Array.of(0xff, 0xff)), jpeg],
    ["zeros before the end", insert(jpeg, jpeg.length - 2, zeros(5)), jpeg],
    ["other bytes before the end", insert(jpeg, jpeg.length - 2, Uint8Array.of(0x12, 0x34)), jpeg],
    ["zeros between scans", insert(progressive, secondScan, zeros(3)), progressive],
    ["other bytes between scans", insert(progressive, secondScan, Uint8Array.of(0x37, 0x11)), progressive],
    ["zeros before a restart marker", insert(restarts, restart, zeros(3)), restarts],
    ["other bytes before a restart marker", insert(restarts, restart, Uint8Array.of(0x55, 0x66)), restarts],
    ["a restart marker with a number far off", at(restarts, restart + 1, 0xd5), restarts],
    [
      "a restart marker too many at the end",
      insert(restarts, restarts.length - 2, Uint8Array.of(0xff, 0xd3)),
      restarts,
    ],
    ["a segment without contents", insert(jpeg, 2, Uint8Array.of(0xff, 0xe5, 0, 2)), jpeg],
    ["a segment with a length of 0", insert(jpeg, 2, Uint8Array.of(0xff, 0xe5, 0, 0)), jpeg],
    ["a thumbnail", insert(jpeg, 2, app1(bytesOf("thumb"), grey)), jpeg],
    ["bytes behind the end", concat([jpeg, zeros(1000), bytesOf("trailer")]), jpeg],
    ["a second picture behind the first, as in MPO", concat([jpeg, grey]), jpeg],
    ["no Huffman tables, as in Motion JPEG", withoutSegments(jpeg, 0xc4), jpeg],
    ["an orientation of 9", insert(jpeg, 2, exifSegment(exif(9))), jpeg],
    [
      "an Exif record of nonsense",
      insert(jpeg, 2, exifSegment(bytesOf("MM\0*\0\0\0\b\0\u0005garbage"))),
      jpeg,
    ],
    ["an orientation behind the scan", insert(jpeg, jpeg.length - 2, exifSegment(exif(6))), jpeg],
  ])("%s", async (_, file, intact) => {
    expect(file).not.toEqual(intact);
    expect(await decodeImage(file)).toEqual(await decodeImage(intact));
  });

  /** The file without all segments of a kind. The fixture's Huffman tables are the standard ones. */
  function withoutSegments(file: Uint8Array, marker: number): Uint8Array {
    const begin = find(file, marker);
    if (begin === -1) return file;
    const end = begin + 2 + ((file[begin + 2]! << 8) | file[begin + 3]!);
    return withoutSegments(concat([file.slice(0, begin), file.slice(end)]), marker);
  }

  test.each<[string, Uint8Array]>([
    ["Exif, big-endian", exifSegment(exif(6))],
    ["Exif, little-endian", exifSegment(exif(6, { little: true }))],
    ["Exif with the number as a LONG", exifSegment(exif(6, { long: true }))],
    [
      "Exif behind XMP",
      concat([app1(bytesOf("http://ns.adobe.com/xap/1.0/\0"), xmp(3)), exifSegment(exif(6))]),
    ],
    ["XMP alone", app1(bytesOf("http://ns.adobe.com/xap/1.0/\0"), xmp(6))],
    ["Exif and more of it", concat([exifSegment(exif(6)), exifSegment(exif(3))])],
  ])("turned upright: %s", async (_, metadata) => {
    expect(await decodeImage(insert(jpeg, 2, metadata))).toEqual(turned(await decodeImage(jpeg)));
  });

  test("all eight orientations", async () => {
    const image = await decodeImage(jpeg);
    const mirrored = (picture: RgbImage) => {
      const pixel = (i: number) => Math.floor(i / 3);
      const column = (i: number) => pixel(i) % picture.width;
      const data = picture.data.map((_, i) => picture.data[i + 3 * (picture.width - 1 - 2 * column(i))]!);
      return { ...picture, data };
    };
    const expected = [
      image,
      mirrored(image),
      upsideDown(image),
      upsideDown(mirrored(image)),
      mirrored(turned(image)),
      turned(image),
      mirrored(turned(upsideDown(image))),
      turned(upsideDown(image)),
    ];
    for (const [i, picture] of expected.entries()) {
      expect(await decodeImage(insert(jpeg, 2, exifSegment(exif(i + 1))))).toEqual(picture);
    }
  });
});

describe("PNG", () => {
  // Two rows of two grey pixels, 1 2 and 3 4.
  const spec: PngSpec = {
    width: 2,
    height: 2,
    depth: 8,
    colorType: 0,
    rows: Uint8Array.of(0, 1, 2, 0, 3, 4),
  };
  const png = buildPng(spec);
  const stream = deflateSync(spec.rows);
  const withData = (...parts: Uint8Array[]) =>
    concat([png.slice(0, 33), ...parts.map((part) => pngChunk("IDAT", part)), png.slice(-12)]);
  const wrongChecksum = (chunk: Uint8Array) => concat([chunk.slice(0, -1), Uint8Array.of(chunk.at(-1)! ^ 1)]);
  const text = pngChunk("tEXt", bytesOf("a\0b"));
  const surplus = deflateSync(concat([spec.rows, Uint8Array.of(9, 9, 9)]));

  // Pillow's pixels are 1 2 3 4 for all of them.
  test.each<[string, Uint8Array]>([
    ["a byte behind the zlib stream", withData(concat([stream, Uint8Array.of(0)]))],
    ["bytes behind the zlib stream", withData(concat([stream, bytesOf("junk".repeat(25))]))],
    ["many bytes behind the zlib stream", withData(concat([stream, new Uint8Array(70_000).fill(120)]))],
    ["a chunk behind the zlib stream", withData(stream, bytesOf("more stuff here"))],
    ["the zlib stream twice", withData(concat([stream, stream]))],
    ["a surplus row, with a filter that does not exist", withData(surplus)],
    ["a surplus row, cut off", withData(surplus.subarray(0, -4))],
    ["a surplus row and bytes behind it", withData(concat([surplus, bytesOf("zz")]))],
    ["a great surplus", withData(deflateSync(concat([spec.rows, new Uint8Array(100_000)])))],
    ["no checksum of the zlib stream", withData(stream.subarray(0, -4))],
    ["an empty chunk first", withData(new Uint8Array(0), stream)],
    ["an empty chunk within", withData(stream.subarray(0, 5), new Uint8Array(0), stream.subarray(5))],
    ["an empty chunk last", withData(stream, new Uint8Array(0))],
    ["a byte a chunk", withData(...Array.from(stream, (byte) => Uint8Array.of(byte)))],
    ["chunks behind IEND", concat([png, text, pngChunk("IDAT", stream)])],
    ["bytes behind IEND", concat([png, bytesOf("junk")])],
    ["no IEND", png.slice(0, -12)],
    ["half an IEND", png.slice(0, -5)],
    ["a wrong checksum of IEND", wrongChecksum(png)],
    [
      "a wrong checksum of IDAT",
      concat([png.slice(0, 33), wrongChecksum(pngChunk("IDAT", stream)), png.slice(-12)]),
    ],
    ["IDAT cut off in its checksum", png.slice(0, -14)],
    ["zeros behind the picture data", buildPng({ ...spec, after: [new Uint8Array(64)] })],
    ["a wrong checksum of text behind the picture", buildPng({ ...spec, after: [wrongChecksum(text)] })],
    ["text before IHDR", concat([png.slice(0, 8), text, png.slice(8)])],
    ["a chunk with digits in its name", buildPng({ ...spec, before: [pngChunk("a1_b", bytesOf("abc"))] })],
    [
      "an IHDR of 14 bytes",
      concat([
        png.slice(0, 8),
        pngChunk("IHDR", concat([png.slice(16, 29), Uint8Array.of(0)])),
        png.slice(33),
      ]),
    ],
  ])("%s", async (_, file) => {
    expect(file).not.toEqual(png);
    const { width, height, data } = await decodeImage(file);
    expect([width, height, ...data.filter((_, i) => i % 3 === 0)]).toEqual([2, 2, 1, 2, 3, 4]);
  });

  test("as much in a picture of several chunks of a decoder's memory, interlaced or not", async () => {
    const noise = Uint8Array.from({ length: 400_000 }, (_, i) => (i * i) >> 7);
    // Rows of a picture; of an interlaced one, those of its seven passes.
    const sizes = [
      300 * 901,
      2 * 38 * (1 + 3 * 38) +
        38 * (1 + 3 * 75) +
        75 * (1 + 3 * 75) +
        75 * (1 + 3 * 150) +
        150 * (1 + 3 * 150) +
        150 * 901,
    ];
    for (const interlace of [0, 1]) {
      // Small numbers are filters as well as samples.
      const rows = noise.map((byte) => byte % 5);
      const big: PngSpec = { width: 300, height: 300, depth: 8, colorType: 2, interlace, rows };
      const exact = await decodeImage(buildPng({ ...big, rows: rows.subarray(0, sizes[interlace]) }));
      const behind = concat([deflateSync(rows), bytesOf("behind")]);
      const file = concat([buildPng(big).slice(0, 33), pngChunk("IDAT", behind)]);
      expect(await decodeImage(file)).toEqual(exact);
      expect(new Set(exact.data).size).toBeGreaterThan(100);
    }
  });

  /** One row of palette indices, decoded. */
  async function paletteRow(depth: number, width: number, row: number[], ...before: Uint8Array[]) {
    const file = buildPng({ width, height: 1, depth, colorType: 3, rows: Uint8Array.of(0, ...row), before });
    const { data } = await decodeImage(file);
    return Array.from({ length: width }, (_, i) => Array.from(data.subarray(3 * i, 3 * i + 3)));
  }
  const colours = (...values: number[]) => pngChunk("PLTE", Uint8Array.from(values));
  const alphas = (...values: number[]) => pngChunk("tRNS", Uint8Array.from(values));
  const BLACK = [0, 0, 0];
  const WHITE = [255, 255, 255];

  test("palette indices out of range are black, and opaque unless tRNS goes that far", async () => {
    expect(await paletteRow(8, 4, [0, 1, 2, 255], colours(1, 8, 15, 22, 29, 36))).toEqual([
      [1, 8, 15],
      [22, 29, 36],
      BLACK,
      BLACK,
    ]);
    expect(await paletteRow(1, 2, [0x40], colours(1, 8, 15))).toEqual([[1, 8, 15], BLACK]);
    expect(await paletteRow(2, 4, [0x1b], colours(1, 8, 15), alphas(255, 64, 0))).toEqual([
      [1, 8, 15],
      [191, 191, 191],
      WHITE,
      BLACK,
    ]);
  });

  test("of several palettes and transparencies the last counts; the order does not matter", async () => {
    const row = [0, 1];
    const second = colours(100, 101, 102, 103, 104, 105);
    expect(await paletteRow(8, 2, row, colours(1, 2, 3), second)).toEqual([
      [100, 101, 102],
      [103, 104, 105],
    ]);
    expect(await paletteRow(8, 2, row, alphas(0, 255), second)).toEqual([WHITE, [103, 104, 105]]);
    expect(await paletteRow(8, 2, row, second, alphas(0), alphas(255, 0))).toEqual([[100, 101, 102], WHITE]);
    expect(await paletteRow(8, 2, row, colours(100, 101, 102, 103, 104))).toEqual([[100, 101, 102], BLACK]);
  });

  const formats: { name: string; width: number; height: number; file: string; rgb: string }[] = JSON.parse(
    readFileSync(new URL("png-formats/case.json", IMAGES), "utf8"),
  );
  test.each(formats)("$name: noise behind all filters", async ({ width, height, file, rgb }) => {
    const data = Uint8Array.from(Buffer.from(rgb, "base64"));
    const { opaque: _, ...found } = await decodeImage(Uint8Array.from(Buffer.from(file, "base64")));
    expect(found).toEqual({ width, height, data });
  });

  const hex = Buffer.from(concat([bytesOf("Exif\0\0"), exif(6)])).toString("hex");
  const raw = bytesOf(`\nexif\n      32\n${hex.slice(0, 40)}\n${hex.slice(40)}\n`);
  test.each<[string, Partial<PngSpec>]>([
    ["eXIf", { before: [pngChunk("eXIf", exif(6))] }],
    ["eXIf behind the picture", { after: [pngChunk("eXIf", exif(6))] }],
    ["eXIf with a JPEG's prefix", { before: [pngChunk("eXIf", concat([bytesOf("Exif\0\0"), exif(6)]))] }],
    ["XMP", { before: [pngChunk("iTXt", concat([bytesOf("XML:com.adobe.xmp\0\0\0\0\0"), xmp(6)]))] }],
    [
      "compressed XMP",
      {
        before: [pngChunk("iTXt", concat([bytesOf("XML:com.adobe.xmp\0\u0001\0\0\0"), deflateSync(xmp(6))]))],
      },
    ],
    [
      "ImageMagick's profile",
      { before: [pngChunk("tEXt", concat([bytesOf("Raw profile type exif\0"), raw]))] },
    ],
    [
      "the same, compressed",
      { before: [pngChunk("zTXt", concat([bytesOf("Raw profile type exif\0\0"), deflateSync(raw)]))] },
    ],
  ])("turned upright: %s", async (_, chunks) => {
    const wide = { ...spec, width: 3, rows: Uint8Array.of(0, 1, 2, 3, 0, 4, 5, 6) };
    const { width, height, data } = await decodeImage(buildPng({ ...wide, ...chunks }));
    const samples = data.filter((_, i) => i % 3 === 0);
    expect([width, height, ...samples]).toEqual([2, 3, 4, 1, 5, 2, 6, 3]);
  });
});

describe("WebP", () => {
  const chunk = (type: string, contents: Uint8Array) => {
    const size = new Uint8Array(4);
    new DataView(size.buffer).setUint32(0, contents.length, true);
    return concat([bytesOf(type), size, contents, new Uint8Array(contents.length % 2)]);
  };
  const riff = (...chunks: Uint8Array[]) => chunk("RIFF", concat([bytesOf("WEBP"), ...chunks]));
  const contentsOf = (file: Uint8Array, type: string) => {
    const at = Buffer.from(file).indexOf(type);
    const size = new DataView(file.buffer, file.byteOffset).getUint32(at + 4, true);
    return file.slice(at + 8, at + 8 + size);
  };
  const vp8x = (flags: number, width: number, height: number) =>
    chunk("VP8X", Uint8Array.of(flags, 0, 0, 0, width - 1, 0, 0, height - 1, 0, 0));
  const [XMP, EXIF, ALPHA, ANIMATION] = [0x04, 0x08, 0x10, 0x02];

  const lossy = imageFile("formats/lossy.webp");
  const picture = chunk("VP8 ", contentsOf(lossy, "VP8 "));
  const [width, height] = [97, 64];

  test("turned upright by Exif and XMP, as far as the header says that they are there", async () => {
    const plain = await decodeImage(lossy);
    const withMetadata = (flags: number, ...chunks: Uint8Array[]) =>
      decodeImage(riff(vp8x(flags, width, height), picture, ...chunks));
    const exifChunk = chunk("EXIF", exif(6));
    const xmpChunk = chunk("XMP ", xmp(6));
    expect(await withMetadata(EXIF, exifChunk)).toEqual(turned(plain));
    expect(await withMetadata(XMP, xmpChunk)).toEqual(turned(plain));
    expect(await withMetadata(XMP | EXIF, chunk("EXIF", exif(3)), xmpChunk)).toEqual(upsideDown(plain));
    expect(await withMetadata(0, exifChunk, xmpChunk)).toEqual(plain);
    expect(await decodeImage(riff(picture, exifChunk))).toEqual(plain);
  });

  test("bytes behind the file and chunks of other kinds do no harm", async () => {
    const plain = await decodeImage(lossy);
    expect(await decodeImage(concat([lossy, bytesOf("garbage")]))).toEqual(plain);
    expect(await decodeImage(riff(picture, chunk("XXXX", bytesOf("hello"))))).toEqual(plain);
  });

  test("alpha counts if the header says so: of an animation's frame, of a lossy still", async () => {
    const file = imageFile("formats/lossy-alpha.webp");
    const frame = concat([chunk("ALPH", contentsOf(file, "ALPH")), chunk("VP8 ", contentsOf(file, "VP8 "))]);
    const size = [80, 61] as const;
    const plain = await decodeImage(file);
    const header = Uint8Array.of(0, 0, 0, 0, 0, 0, 79, 0, 0, 60, 0, 0, 100, 0, 0, 0);
    const animation = [chunk("ANIM", new Uint8Array(6)), chunk("ANMF", concat([header, frame]))];
    expect(await decodeImage(riff(vp8x(ALPHA, ...size), frame))).toEqual(plain);
    expect(await decodeImage(riff(vp8x(ANIMATION | ALPHA, ...size), ...animation))).toEqual(plain);
    // Without, Pillow's mode is RGB: the colours beneath the transparency.
    const opaque = await decodeImage(riff(vp8x(0, ...size), chunk("VP8 ", contentsOf(file, "VP8 "))));
    expect(opaque).not.toEqual(plain);
    expect(await decodeImage(riff(vp8x(0, ...size), frame))).toEqual(opaque);
    expect(await decodeImage(riff(vp8x(ANIMATION, ...size), ...animation))).toEqual(opaque);
  });
});
