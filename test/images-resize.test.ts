import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { crop } from "../src/images/crop.ts";
import { decodeImage } from "../src/images/decode.ts";
import { type ResizeFilter, resize } from "../src/images/resize.ts";
import type { RgbImage } from "../src/images/rgb.ts";
import { ImageError } from "../src/tensor/errors.ts";
import { imageFile, preprocessCase, preprocessGoldens } from "./helpers/image-goldens.ts";

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
