import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ImageError } from "../../src/errors.ts";
import { crop } from "../../src/images/crop.ts";
import { decodeImage } from "../../src/images/files/decode.ts";
import { encodePng } from "../../src/images/files/png-write.ts";
import type { RgbImage } from "../../src/images/files/rgb.ts";
import { modelView } from "../../src/images/preprocess.ts";
import { readProcessorConfig } from "../../src/images/processors/processor-config.ts";
import { type ResizeFilter, resize } from "../../src/images/resize.ts";
import { imageFile, preprocessCase, preprocessGoldens } from "../helpers/image-goldens.ts";

const filters = fc.constantFrom<ResizeFilter>("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos");

const pictures: fc.Arbitrary<RgbImage> = fc
  .record({ width: fc.integer({ min: 1, max: 23 }), height: fc.integer({ min: 1, max: 23 }) })
  .chain(({ width, height }) => {
    const size = width * height * 3;
    return fc.uint8Array({ minLength: size, maxLength: size }).map((data) => ({ width, height, data }));
  });

describe("resize", () => {
  test.each(preprocessCase.resize)(
    "$image to $width x $height, $filter: exactly Pillow's bytes",
    async (c) => {
      const image = await decodeImage(imageFile(c.image));
      const golden = preprocessGoldens.get(`resize/${c.image}/${c.width}x${c.height}/${c.filter}`)!;
      const resized = resize(image, c.width, c.height, c.filter as ResizeFilter);
      expect([resized.height, resized.width, 3]).toEqual(golden.shape);
      expect(resized.data).toEqual(golden.data);
    },
  );

  test("a region is the same as that part of the whole", () => {
    const sizes = fc.integer({ min: 1, max: 40 });
    fc.assert(
      fc.property(
        pictures,
        sizes,
        sizes,
        filters,
        fc.array(fc.nat(1e6), { minLength: 4, maxLength: 4 }),
        (image, width, height, filter, n) => {
          const left = n[0]! % width;
          const top = n[1]! % height;
          const region = {
            left,
            top,
            width: 1 + (n[2]! % (width - left)),
            height: 1 + (n[3]! % (height - top)),
          };
          const whole = resize(image, width, height, filter);
          expect(resize(image, width, height, filter, region)).toEqual(crop(whole, region));
        },
      ),
      { numRuns: 300 },
    );
  });

  test("the size it has already changes nothing", () => {
    fc.assert(
      fc.property(pictures, filters, (image, filter) => {
        expect(resize(image, image.width, image.height, filter)).toEqual(image);
      }),
    );
  });

  test("one colour stays that colour, in every size", () => {
    const colour = fc.tuple(fc.nat(255), fc.nat(255), fc.nat(255));
    const size = fc.integer({ min: 1, max: 50 });
    fc.assert(
      fc.property(colour, size, size, size, filters, (rgb, from, width, height, filter) => {
        const flat = {
          width: from,
          height: 7,
          data: Uint8Array.from({ length: from * 21 }, (_, i) => rgb[i % 3]!),
        };
        const found = new Set(
          resize(flat, width, height, filter).data.map((value, i) => Math.abs(value - rgb[i % 3]!)),
        );
        expect([...found]).toEqual([0]);
      }),
    );
  });

  test("refuses sizes and regions that make no sense", () => {
    const image = { width: 2, height: 2, data: new Uint8Array(12) };
    for (const [width, height] of [
      [0, 4],
      [4, -1],
      [2.5, 4],
      [Number.NaN, 4],
    ] as const) {
      expect(() => resize(image, width, height, "bicubic")).toThrow(ImageError);
    }
    const outside = { left: 3, top: 0, width: 2, height: 4 };
    expect(() => resize(image, 4, 4, "bicubic", outside)).toThrow(
      /region inside 4 x 4, found 2 x 4 at \(3, 0\)/,
    );
  });
});

test("what has not three bytes for each pixel is refused, not misread", () => {
  const processor = readProcessorConfig({ image_processor_type: "CLIPImageProcessor", do_resize: false });
  for (const [data, found] of [
    [new Uint8ClampedArray(2 * 3 * 4), "Uint8ClampedArray of 24 for 2 x 3"],
    [new Uint8Array(17), "Uint8Array of 17 for 2 x 3"],
    [new Float32Array(18), "Float32Array of 18 for 2 x 3"],
  ] as const) {
    const image = { data: data as unknown as Uint8Array, width: 2, height: 3 };
    for (const call of [
      () => resize(image, 4, 4, "bicubic"),
      () => modelView(image, processor),
      () => encodePng(image),
    ]) {
      expect(call).toThrow(ImageError);
      expect(call).toThrow(`expected 8-bit RGB, a Uint8Array with 3 bytes for each pixel, found ${found}`);
    }
  }
  expect(() => resize(undefined as never, 4, 4, "nearest")).toThrow(/found undefined/);
});
